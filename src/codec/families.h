// The codecs of each file, for the table.
#pragma once

#include "codec/codec.h"

namespace quantport {

extern const Codec kPlainCodec;
extern const Codec kFp8Codec;        // one scale, or one a row or tile
extern const Codec kFp8ReadCodec;    // one a group
extern const Codec kNvfp4Codec;      // ModelOpt's
extern const Codec kW4A8Nvfp4Codec;  // the same with a scale of scales as FP8 has it
extern const Codec kNvfp4ReadCodec;  // those that are read only
extern const Codec kMxfp8Codec;
extern const Codec kMxfp4Codec;
extern const Codec kMxfp4ReadCodec;
extern const Codec kMxfp4BlocksCodec;
extern const Codec kFp4BlockCodec;
extern const Codec kInt8Codec;
extern const Codec kInt4Codec;
extern const Codec kIntegerCodec;  // of other tools: a code, a zero point and a scale
extern const Codec kAwqCodec;

// Scales of a job's rows, `columns` of them a row of blocks, each of which stands for `rows` rows.
Result<std::vector<float>> ReadBlockScales(const DecodeJob& job, uint64_t block_rows, uint64_t block_columns);

// Copies scales into the job's bytes.
void StoreScales(const std::vector<float>& scales, const EncodeJob& job);

// Scales of blocks from their largest magnitudes, or from those that are searched for. `amax_type` is that in which
// ModelOpt keeps amax.
Result<std::vector<float>> BlockScales(const EncodeJob& job, quantize::BlockShape block, float largest,
                                       quantize::ElementType amax_type);

}  // namespace quantport
