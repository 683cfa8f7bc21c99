#include "exec/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>

#include "base/checked.h"
#include "codec/codec.h"
#include "exec/matrix_reader.h"
#include "exec/sources.h"
#include "exec/tile_queue.h"
#include "quantize/amax_search.h"

namespace quantport {
namespace {

constexpr uint64_t kTileBytes = 4 << 20;  // of elements as read
// What groups may keep between their two passes. A dense MLP's gate and up of a model of 8 billion weights are 224 MiB.
constexpr uint64_t kRoomBytes = 240 << 20;

// The larger of two magnitudes, or NaN where one is.
float Larger(float a, float b) { return std::isnan(a) || a > b ? a : b; }

quantize::Numerics NumericsOf(const Computing& computing) {
  return {computing.as_cuda ? quantize::Arithmetic::kCuda : quantize::Arithmetic::kCpu, computing.bit_exact_zeros};
}

class Quantizer {
 public:
  Quantizer(const QuantizePlan& plan, const Storage& storage, const ExecOptions& options)
      : plan_(plan), storage_(storage), options_(options), numerics_(NumericsOf(plan.computing)) {
    CutTiles();
    report_.errors.resize(plan.matrices.size());
    report_.casts.resize(plan.matrices.size());
    report_.amax.assign(plan.groups, 0.0f);
  }

  Result<QuantizedReport> Run(OutputFolder* folder, const std::filesystem::path& below) {
    if (auto s = CopyTheRest(folder, below); !s) return s.errors();
    auto sources = Sources::Open(plan_.files.sources, storage_);
    if (!sources) return sources.errors();
    sources_ = std::move(*sources);
    if (auto s = OpenTargets(folder, below); !s) return s.errors();
    if (auto s = WriteScalars(); !s) return s.errors();
    if (auto s = ComputeTiles(); !s) return s.errors();
    AddErrors();
    if (auto s = sources_.CheckUnchanged(); !s) return s.errors();
    // Scales of whole matrices are in no stretch.
    if (options_.work.progress) options_.work.progress(plan_.files.TotalBytes(), plan_.files.TotalBytes());
    return std::move(report_);
  }

 private:
  static uint64_t RowBytes(const PlannedMatrix& matrix) {
    return matrix.columns * static_cast<uint64_t>(DTypeBits(matrix.dtype)) / 8;
  }

  // Jobs in the order of their first matrix; a group's matrices follow each other.
  void CutTiles() {
    std::vector<std::vector<uint32_t>> members(plan_.groups);
    for (uint32_t m = 0; m < plan_.matrices.size(); ++m) {
      if (plan_.matrices[m].group) members[*plan_.matrices[m].group].push_back(m);
    }
    for (uint32_t m = 0; m < plan_.matrices.size(); ++m) {
      const auto& group = plan_.matrices[m].group;
      if (!group) {
        AddJob({m}, false);
      } else if (members[*group].front() == m) {
        AddJob(members[*group], true);
      }
    }
  }

  void AddJob(const std::vector<uint32_t>& matrices, bool measured) {
    const bool searched = measured && AmaxSearchOf(plan_.matrices[matrices[0]].target.encoding).has_value();
    TileJob job{tiles_.size(), 0, measured, searched};
    for (const uint32_t m : matrices) {
      const PlannedMatrix& matrix = plan_.matrices[m];
      const uint64_t step = RowStep(matrix);
      const uint64_t rows = std::max(step, kTileBytes / std::max<uint64_t>(1, RowBytes(matrix)) / step * step);
      for (uint64_t first = 0; first < matrix.rows && matrix.columns > 0; first += rows)
        tiles_.push_back({m, first, std::min(rows, matrix.rows - first)});
      tile_bytes_ = std::max(tile_bytes_, std::min(rows, matrix.rows) * RowBytes(matrix));
      total_ += matrix.bytes_after;
    }
    job.count = tiles_.size() - job.first;
    // Of nothing there is no largest magnitude: the scale of an empty matrix is that of zeros.
    if (job.count == 0 && measured) empty_.insert(empty_.end(), matrices.begin(), matrices.end());
    if (job.count > 0) jobs_.push_back(job);
  }

  // Creates the files, with room for what is computed.
  Status CopyTheRest(OutputFolder* folder, const std::filesystem::path& below) {
    ExecOptions copy = options_;
    const uint64_t all = plan_.files.TotalBytes();
    copied_ = all > total_ ? all - total_ : 0;
    const auto& report = options_.work.progress;
    if (report) {
      copy.work.progress = [&](uint64_t done, uint64_t) { report(std::min(done, copied_), all); };
    }
    auto copied = WriteFiles(plan_.files, storage_, folder, below, copy);
    if (!copied) return copied.errors();
    report_.copied = std::move(*copied);
    return {};
  }

  Status OpenTargets(OutputFolder* folder, const std::filesystem::path& below) {
    for (const PlannedFile& file : plan_.files.files) {
      auto target = folder->Open(below / file.name);
      if (!target) return target.errors();
      targets_.push_back(*target);
    }
    for (size_t i = 0; i < sources_.size(); ++i) readers_.emplace_back(&sources_[i]);
    reader_.emplace(plan_, sources_, &readers_);
    return {};
  }

  Status WriteScalar(const OutputPlace& place, float value) {
    return targets_[place.file]->WriteAt(std::as_bytes(std::span(&value, 1)), place.offset);
  }

  Status WriteScalars() {
    for (const PlannedScalar& scalar : plan_.scalars) {
      // As ModelOpt guards them: an input that was always zero has the scale one, and no scale rounds to zero.
      float value = 0;
      quantize::GuardedScales(std::span(&scalar.amax, 1), scalar.divisor, quantize::ElementType::kF32,
                              numerics_.arithmetic, std::span(&value, 1));
      if (auto s = WriteScalar(scalar.place, value); !s) return s;
    }
    for (const uint32_t m : empty_) {
      if (auto s = WriteOwnScale(plan_.matrices[m], 0.0f); !s) return s;
    }
    return {};
  }

  Status WriteOwnScale(const PlannedMatrix& matrix, float amax) {
    return matrix.scalar ? WriteScalar(*matrix.scalar, ScalarScale(matrix.target, amax, numerics_)) : Status();
  }

  Status ComputeTiles() {
    const uint64_t buffer = BufferBytes();
    const size_t room = std::max<size_t>(1, kRoomBytes / buffer);
    kept_.resize(tiles_.size());
    tile_errors_.resize(tiles_.size());
    losses_.resize(tiles_.size());
    TileQueue queue(jobs_, room);
    const uint64_t all = plan_.files.TotalBytes();
    const auto& report = options_.work.progress;
    Progress progress(
        [&](uint64_t done, uint64_t) {
          if (report) report(std::min(copied_ + done, all), all);
        },
        all);
    return RunWorkers(
        std::min(options_.work.ThreadCount(4, 16), tiles_.size()), [&] { return Work(&queue, &progress); },
        [&] { queue.Stop(); }, options_.work.start_thread);
  }

  uint64_t BufferBytes() const { return RoundUp(std::max<uint64_t>(tile_bytes_, 1), kDirectBlock) + kReadSlack; }

  // What one thread works with.
  struct Bench {
    std::unique_ptr<IoBuffer> buffer;
    EncodedRows encoded;
    Writeback writeback;
  };

  Status Work(TileQueue* queue, Progress* progress) {
    Bench bench;
    while (const auto task = queue->Next()) {
      if (auto s = options_.work.Continue(); !s) return s;
      auto s = task->pass == TilePass::kMeasure  ? Measure(*task, &bench, queue)
               : task->pass == TilePass::kSearch ? Search(*task, &bench, queue)
                                                 : Encode(*task, &bench, queue);
      if (!s) return s;
      if (task->pass == TilePass::kEncode) progress->Add(bench.encoded.codes.size() + bench.encoded.scales.size());
    }
    return bench.writeback.Finish();
  }

  // Spare buffers are used again, so that there are never more than are in use at once.
  std::unique_ptr<IoBuffer> TakeBuffer() {
    {
      const std::lock_guard lock(mutex_);
      if (!spare_.empty()) {
        auto buffer = std::move(spare_.back());
        spare_.pop_back();
        return buffer;
      }
    }
    return std::make_unique<IoBuffer>(BufferBytes());
  }

  void GiveBack(std::unique_ptr<IoBuffer> buffer) {
    const std::lock_guard lock(mutex_);
    spare_.push_back(std::move(buffer));
  }

  quantize::Matrix View(const Tile& tile, const IoBuffer& buffer) const {
    const PlannedMatrix& matrix = plan_.matrices[tile.matrix];
    const auto* data = reinterpret_cast<const uint8_t*>(buffer.bytes().data());
    return {{data, tile.rows * RowBytes(matrix)}, ElementTypeOf(matrix.dtype), tile.rows, matrix.columns};
  }

  Status CheckFinite(const Tile& tile, const quantize::Matrix& rows) const {
    if (plan_.computing.allow_nonfinite || plan_.matrices[tile.matrix].target.encoding.format == FormatId::kPlain)
      return {};
    const size_t index = quantize::FindNonfinite(rows);
    if (index == rows.rows * rows.columns) return {};
    const float value = quantize::LoadElement(rows.Flat(), index);
    return Error{ErrorKind::kQuantConversionUnsupported,
                 fmt::format("element [{}, {}] is {}", tile.first_row + index / rows.columns, index % rows.columns,
                             std::isnan(value) ? "NaN" : "infinite"),
                 {},
                 ValueName(plan_.matrices[tile.matrix]),
                 "--allow-nonfinite quantizes it all the same, with scales that may be NaN"};
  }

  Status Measure(const TileTask& task, Bench* bench, TileQueue* queue) {
    const Tile& tile = tiles_[task.tile];
    const PlannedMatrix& matrix = plan_.matrices[tile.matrix];
    auto buffer = task.kept || bench->buffer == nullptr ? TakeBuffer() : std::move(bench->buffer);
    if (auto s = reader_->Read(matrix, tile.first_row, tile.rows, !task.kept, buffer->bytes()); !s) return s;
    const quantize::Matrix rows = View(tile, *buffer);
    float amax = 0;
    if (matrix.target.encoding.cast) {
      auto powers = reader_->ReadPowers(matrix, tile.first_row, tile.rows);
      if (!powers) return powers.errors();
      amax = LargestPower(*powers);
    } else if (auto s = quantize::BlockAmax(rows, {rows.rows, rows.columns}, {&amax, 1}); !s) {
      return s;
    }
    if (!std::isfinite(amax)) {
      if (auto s = CheckFinite(tile, rows); !s) return s;
    }
    {
      const std::lock_guard lock(mutex_);
      float& all = report_.amax[*matrix.group];
      all = Larger(amax, all);
    }
    if (task.kept) {
      kept_[task.tile] = std::move(buffer);
    } else {
      bench->buffer = std::move(buffer);
    }
    if (!queue->Done(task)) return {};
    auto status = jobs_[task.job].searched ? Status() : WriteGroupScales(task.job);
    queue->Release(task);
    return status;
  }

  // What the candidates cost for a scale of a whole group, tile by tile: then the sum does not depend on threads.
  Status Search(const TileTask& task, Bench* bench, TileQueue* queue) {
    const Tile& tile = tiles_[task.tile];
    const PlannedMatrix& matrix = plan_.matrices[tile.matrix];
    auto own = task.kept ? nullptr : std::move(bench->buffer);
    if (!task.kept) {
      if (own == nullptr) own = TakeBuffer();
      if (auto s = reader_->Read(matrix, tile.first_row, tile.rows, true, own->bytes()); !s) return s;
    }
    const AmaxSearch search = *AmaxSearchOf(matrix.target.encoding);
    std::vector<float> amax;
    for (const float multiplier : search.multipliers) amax.push_back(report_.amax[*matrix.group] * multiplier);
    losses_[task.tile].assign(amax.size(), 0.0);
    quantize::AddLosses(View(tile, task.kept ? *kept_[task.tile] : *own).Flat(), search.format, amax,
                        losses_[task.tile]);
    if (!task.kept) bench->buffer = std::move(own);
    if (!queue->Done(task)) return {};
    ChooseAmax(task.job, search);
    auto status = WriteGroupScales(task.job);
    queue->Release(task);
    return status;
  }

  void ChooseAmax(size_t job, const AmaxSearch& search) {
    std::vector<double> sums(search.multipliers.size());
    for (size_t i = 0; i < jobs_[job].count; ++i) {
      std::vector<double>& own = losses_[jobs_[job].first + i];
      for (size_t k = 0; k < sums.size(); ++k) sums[k] += own[k];
      own = {};
    }
    const PlannedMatrix& matrix = plan_.matrices[tiles_[jobs_[job].first].matrix];
    float& amax = report_.amax[*matrix.group];
    // ModelOpt keeps it in the weight's type.
    amax = quantize::RoundTo(ElementTypeOf(matrix.dtype), amax * search.multipliers[quantize::LeastLoss(sums)]);
  }

  Status WriteGroupScales(size_t job) {
    for (size_t i = 0; i < jobs_[job].count; ++i) {
      const Tile& tile = tiles_[jobs_[job].first + i];
      if (tile.first_row != 0) continue;
      const PlannedMatrix& matrix = plan_.matrices[tile.matrix];
      if (auto s = WriteOwnScale(matrix, report_.amax[*matrix.group]); !s) return s;
    }
    return {};
  }

  Status Encode(const TileTask& task, Bench* bench, TileQueue* queue) {
    const Tile& tile = tiles_[task.tile];
    const PlannedMatrix& matrix = plan_.matrices[tile.matrix];
    if (!matrix.codes && !matrix.scales) return LeaveUnwritten(task, bench, queue);
    auto buffer = task.kept ? std::move(kept_[task.tile]) : std::move(bench->buffer);
    if (buffer == nullptr) buffer = TakeBuffer();
    if (!task.kept) {
      if (auto s = reader_->Read(matrix, tile.first_row, tile.rows, false, buffer->bytes()); !s) return s;
    }
    const quantize::Matrix rows = View(tile, *buffer);
    if (!matrix.group) {
      if (auto s = CheckFinite(tile, rows); !s) return s;
    }
    const float amax = matrix.group ? report_.amax[*matrix.group] : 0.0f;
    std::vector<uint8_t> powers;
    if (matrix.target.encoding.cast) {
      auto read = reader_->ReadPowers(matrix, tile.first_row, tile.rows);
      if (!read) return read.errors();
      powers = std::move(*read);
      CountCast(tile.matrix, powers, amax);
    }
    if (auto s = EncodeRows(matrix.target, rows, amax, numerics_, &bench->encoded, &tile_errors_[task.tile], powers);
        !s) {
      for (Error& error : s.errors()) error.tensor = ValueName(matrix);
      return s;
    }
    if (task.kept) {
      GiveBack(std::move(buffer));
    } else {
      bench->buffer = std::move(buffer);
    }
    if (auto s = Write(tile, matrix, bench); !s) return s;
    queue->Done(task);
    return {};
  }

  void CountCast(uint32_t matrix, const std::vector<uint8_t>& powers, float largest) {
    const uint64_t exact = CountExact(powers, largest);
    const std::lock_guard lock(mutex_);
    report_.casts[matrix].Add({powers.size(), exact});
  }

  // Read for its magnitude alone.
  Status LeaveUnwritten(const TileTask& task, Bench* bench, TileQueue* queue) {
    bench->encoded = {};
    if (task.kept) GiveBack(std::move(kept_[task.tile]));
    queue->Done(task);
    return {};
  }

  // In the order of the rows, so that a report does not depend on which thread was first.
  void AddErrors() {
    for (size_t i = 0; i < tiles_.size(); ++i) report_.errors[tiles_[i].matrix].Add(tile_errors_[i]);
  }

  Status Write(const Tile& tile, const PlannedMatrix& matrix, Bench* bench) {
    const auto put = [&](const std::vector<uint8_t>& bytes, const std::optional<OutputPlace>& place,
                         uint64_t offset) -> Status {
      if (bytes.empty() || !place) return {};
      OutputFile* const file = targets_[place->file];
      if (auto s = file->WriteAt(std::as_bytes(std::span(bytes)), place->offset + offset); !s) return s;
      return bench->writeback.Add(file, place->offset + offset, bytes.size());
    };
    // As many bytes as those of the rows before, which are whole steps.
    const quantize::ElementType type = ElementTypeOf(matrix.dtype);
    if (auto s =
            put(bench->encoded.codes, matrix.codes, CodeBytes(matrix.target, type, tile.first_row, matrix.columns));
        !s)
      return s;
    return put(bench->encoded.scales, matrix.scales, ScaleBytes(matrix.target, tile.first_row, matrix.columns));
  }

  const QuantizePlan& plan_;
  const Storage& storage_;
  const ExecOptions& options_;
  const quantize::Numerics numerics_;
  std::vector<Tile> tiles_;
  std::vector<TileJob> jobs_;
  std::vector<uint32_t> empty_;  // matrices without elements that have a scale
  uint64_t tile_bytes_ = 0;      // of the largest
  uint64_t total_ = 0;           // bytes to be computed
  uint64_t copied_ = 0;          // and those that are not
  Sources sources_;
  std::deque<SourceFile> readers_;
  std::optional<MatrixReader> reader_;
  std::vector<OutputFile*> targets_;
  std::vector<std::unique_ptr<IoBuffer>> kept_;  // of each tile between its passes
  std::vector<quantize::ErrorSums> tile_errors_;
  std::vector<std::vector<double>> losses_;  // of each tile, by candidate
  std::vector<std::unique_ptr<IoBuffer>> spare_;
  std::mutex mutex_;  // guards spare_ and report_
  QuantizedReport report_;
};

}  // namespace

Result<QuantizedReport> WriteQuantized(const QuantizePlan& plan, const Storage& storage, OutputFolder* folder,
                                       const std::filesystem::path& below, const ExecOptions& options) {
  return Quantizer(plan, storage, options).Run(folder, below);
}

}  // namespace quantport
