// What ModelOpt's configs say, where another dialect's hold a part of them.
#pragma once

#include "base/json.h"
#include "dialect/claims.h"

namespace quantport {

// Rules for quantized_layers: a layer's name, or that of a container of experts, which covers the linears below it.
void AddQuantizedLayers(const Json& quantization, ConfigClaims* claims);

}  // namespace quantport
