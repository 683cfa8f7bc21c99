// Experts that are kept with inputs before outputs, in formats whose blocks run along the inputs.
#pragma once

#include "exec/encode.h"

namespace quantport {

// As EncodeRows, of a matrix of which BlocksRunDown: `rows` are whole blocks of inputs, and codes and scales come out
// in the same order, [inputs / 2, outputs] and [inputs / block, outputs]. Two inputs share a byte.
Status EncodeBatched(const PlannedMatrix& matrix, const quantize::Matrix& rows, float group_amax,
                     const quantize::Numerics& numerics, EncodedRows* out, quantize::ErrorSums* sums);

}  // namespace quantport
