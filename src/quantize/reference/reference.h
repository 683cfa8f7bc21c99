// The kernels in plain C++: see kernels.h for what each does.
#pragma once

#include "quantize/kernels.h"

namespace quantport::quantize::reference {

void GroupAmax(Row row, size_t group, float* amax);
size_t FindNonfinite(Row row);

void Fp8(Row row, const float* scales, size_t group, bool round_quotient, uint8_t* codes);
void FromFp8(const uint8_t* codes, size_t size, const float* scales, size_t group, ScaleRounding, Output);
ErrorSums Fp8Error(Row row, const uint8_t* codes, const float* scales, size_t group);

void Mxfp8(Row row, uint8_t* scales, uint8_t* codes);
void Mxfp4(Row row, uint8_t* scales, uint8_t* codes);
void FromMxfp8(const uint8_t* codes, size_t size, const uint8_t* scales, Output);
void FromMxfp4(const uint8_t* codes, size_t size, const uint8_t* scales, Output);
ErrorSums Mxfp8Error(Row row, const uint8_t* codes, const uint8_t* scales);
ErrorSums Mxfp4Error(Row row, const uint8_t* codes, const uint8_t* scales);

// A block scale as ModelOpt stores it: a zero block gets 1, nothing becomes zero or NaN by rounding.
uint8_t EncodeBlockScale(float amax, float divisor);
void Nvfp4(Row row, float global_scale, size_t block, uint8_t* scales, uint8_t* codes);
void Nvfp4WithScales(Row row, float global_scale, size_t block, const uint8_t* scales, uint8_t* codes);
void FromNvfp4(const uint8_t* codes, size_t size, float global_scale, size_t block, const uint8_t* scales, Output);
ErrorSums Nvfp4Error(Row row, const uint8_t* codes, float global_scale, size_t block, const uint8_t* scales);

void Int8(Row row, const float* scales, size_t group, uint8_t* codes);
void Int4(Row even, Row odd, const float* even_scales, const float* odd_scales, size_t group, uint8_t* codes);
void FromInt8(const uint8_t* codes, size_t size, const float* scales, size_t group, ScaleRounding, Output);
void FromInt4(const uint8_t* codes, size_t size, const float* even_scales, const float* odd_scales, size_t group,
              ScaleRounding, Output even, Output odd);
ErrorSums Int8Error(Row row, const uint8_t* codes, const float* scales, size_t group);
ErrorSums Int4Error(Row even, Row odd, const uint8_t* codes, const float* even_scales, const float* odd_scales,
                    size_t group);

}  // namespace quantport::quantize::reference
