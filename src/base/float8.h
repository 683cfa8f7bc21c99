// F8_E4M3 (1-4-3, bias 7, no infinities, largest 448, NaN 0x7F and 0xFF): the OCP 8-bit format that torch calls
// float8_e4m3fn.
#pragma once

#include <cstdint>

namespace quantport {

// Exact. NaN for the two codes that are none.
float DecodeE4m3(uint8_t code);

// Rounded to nearest, ties to even; beyond 448 saturated to it. NaN stays NaN.
uint8_t EncodeE4m3(double value);

}  // namespace quantport
