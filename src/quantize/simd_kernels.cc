#include "quantize/kernels.h"
namespace quantport::quantize {
const Kernels& SimdKernels() { return ReferenceKernels(); }
}  // namespace quantport::quantize
