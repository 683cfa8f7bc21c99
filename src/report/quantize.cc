#include "report/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/json.h"
#include "base/text.h"
#include "report/warnings.h"

namespace quantport {
namespace {

double SqnrDb(const quantize::ErrorSums& sums) {
  if (sums.squared_error == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(sums.squares / sums.squared_error);
}

// Infinity is no JSON.
Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

std::string Decibels(double value) {
  return std::isfinite(value) ? fmt::format("{:.2f}", value) : std::string("exact");
}

// 100 % is said of all alone.
std::string Percent(uint64_t part, uint64_t whole) {
  if (part == whole) return "100 %";
  const double percent = 100 * static_cast<double>(part) / static_cast<double>(whole);
  return fmt::format("{:.2f} %", std::min(percent, 99.99));
}

std::string FormatName(const std::string& format) { return format.empty() ? "plain" : format; }

}  // namespace

void AddErrors(const std::vector<quantize::ErrorSums>& errors, const std::vector<quantize::CastBlocks>& casts,
               QuantizeReport* report) {
  std::map<std::string, std::pair<FormatTotal, quantize::ErrorSums>> totals;
  for (size_t i = 0; i < report->weights.size(); ++i) {
    QuantizedWeight& weight = report->weights[i];
    const quantize::ErrorSums& sums = errors[i];
    weight.sqnr_db = SqnrDb(sums);
    weight.max_error = static_cast<double>(sums.max_error);
    weight.clipped_share =
        sums.elements == 0 ? 0 : static_cast<double>(sums.clipped) / static_cast<double>(sums.elements);
    weight.cast_blocks = casts[i].all;
    weight.exact_blocks = casts[i].exact;
    auto& [total, all] = totals[weight.format];
    total.format = weight.format;
    ++total.weights;
    total.bytes_before += weight.bytes_before;
    total.bytes_after += weight.bytes_after;
    total.cast_blocks += weight.cast_blocks;
    total.exact_blocks += weight.exact_blocks;
    all.Add(sums);
  }
  for (auto& [format, total] : totals) {
    total.first.sqnr_db = SqnrDb(total.second);
    report->totals.push_back(std::move(total.first));
  }
  std::stable_sort(report->weights.begin(), report->weights.end(),
                   [](const QuantizedWeight& a, const QuantizedWeight& b) { return a.sqnr_db < b.sqnr_db; });
}

std::string QuantizeText(const QuantizeReport& report, size_t most) {
  std::string out;
  const size_t shown = std::min(most, report.weights.size());
  if (shown > 0 && !report.totals.empty() && !report.totals.front().format.empty()) {
    out +=
        fmt::format("{:<60} {:>14} {:>9} {:>10} {:>8}\n", "least exact", "format", "SQNR dB", "max error", "clipped");
    for (size_t i = 0; i < shown; ++i) {
      const QuantizedWeight& weight = report.weights[i];
      out += fmt::format("{:<60} {:>14} {:>9} {:>10.3g} {:>7.2f}%\n", ShortenMiddle(Printable(weight.name), 60),
                         FormatName(weight.format), Decibels(weight.sqnr_db), weight.max_error,
                         100 * weight.clipped_share);
    }
    out += "\n";
  }
  out += fmt::format("{:<16} {:>8} {:>11} {:>11} {:>9}\n", "format", "weights", "before", "after", "SQNR dB");
  for (const FormatTotal& total : report.totals) {
    out += fmt::format("{:<16} {:>8} {:>11} {:>11} {:>9}\n", FormatName(total.format), total.weights,
                       HumanBytes(total.bytes_before), HumanBytes(total.bytes_after), Decibels(total.sqnr_db));
  }
  for (const FormatTotal& total : report.totals) {
    if (total.cast_blocks > 0)
      out +=
          fmt::format("cast to {} with their own powers of two: {} of {} blocks exact ({})\n", FormatName(total.format),
                      total.exact_blocks, total.cast_blocks, Percent(total.exact_blocks, total.cast_blocks));
  }
  return out;
}

std::string QuantizePlanText(const QuantizeReport& report) {
  std::string out;
  for (const ModuleFormat& module : report.modules) {
    if (module.kind == "attention") continue;
    std::string format = module.format.empty() ? "-" : module.format;
    if (!module.format.empty() && module.block_size > 0) format += fmt::format("/{}", module.block_size);
    const std::string hub = module.hub.empty() ? std::string() : Printable(module.hub.front());
    out += fmt::format("{:<16} {}", format, Printable(module.name));
    if (module.experts > 0) out += fmt::format(" ({} experts)", module.experts);
    if (!hub.empty() && (module.hub.size() > 1 || module.hub.front() != module.name))
      out += fmt::format(" <- {}{}", hub, module.hub.size() > 1 ? ", ..." : "");
    out += "\n";
  }
  for (const std::string& entry : report.exclude_modules)
    out += fmt::format("{:<16} {}\n", "excluded", Printable(entry));
  out += fmt::format("KV cache: {}\n", report.kv_cache.empty() ? "as it is" : report.kv_cache);
  return out;
}

std::string QuantizeJson(const QuantizeReport& report) {
  Json json = Json::object();
  json["recipe"] = report.recipe;
  json["architecture"] = report.architecture;
  json["mapping"] = report.mapping;
  json["kv_cache"] = report.kv_cache.empty() ? Json(nullptr) : Json(report.kv_cache);
  json["exclude_modules"] = report.exclude_modules;
  json["input_tensors"] = report.input_tensors;
  json["output_tensors"] = report.output_tensors;
  json["bytes_before"] = report.bytes_before;
  json["bytes"] = report.bytes;
  json["files"] = report.files;
  json["cloned_bytes"] = report.cloned_bytes;
  json["totals"] = Json::array();
  for (const FormatTotal& total : report.totals) {
    json["totals"].push_back({{"format", total.format},
                              {"weights", total.weights},
                              {"bytes_before", total.bytes_before},
                              {"bytes_after", total.bytes_after},
                              {"sqnr_db", Number(total.sqnr_db)},
                              {"cast_blocks", total.cast_blocks},
                              {"exact_blocks", total.exact_blocks}});
  }
  json["modules"] = Json::array();
  for (const ModuleFormat& module : report.modules) {
    json["modules"].push_back({{"name", module.name},
                               {"kind", module.kind},
                               {"format", module.format.empty() ? Json(nullptr) : Json(module.format)},
                               {"block_size", module.block_size},
                               {"experts", module.experts},
                               {"hub", module.hub}});
  }
  json["weights"] = Json::array();
  for (const QuantizedWeight& weight : report.weights) {
    json["weights"].push_back({{"name", weight.name},
                               {"in_memory", weight.in_memory},
                               {"format", weight.format},
                               {"shape", Json::array({weight.rows, weight.columns})},
                               {"bytes_before", weight.bytes_before},
                               {"bytes_after", weight.bytes_after},
                               {"sqnr_db", Number(weight.sqnr_db)},
                               {"max_error", Number(weight.max_error)},
                               {"clipped_share", weight.clipped_share},
                               {"cast_blocks", weight.cast_blocks},
                               {"exact_blocks", weight.exact_blocks}});
  }
  json["left_out"] = report.left_out;
  json["notes"] = report.notes;
  json["warnings"] = WarningList(report.warnings);
  return DumpJson(json);
}

}  // namespace quantport
