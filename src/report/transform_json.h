// A transform in the form that mapping files have.
#pragma once

#include "base/json.h"
#include "mapping/transform.h"

namespace quantport {

Json TransformJson(const Transform& transform);

}  // namespace quantport
