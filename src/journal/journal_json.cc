#include "journal/journal_json.h"

#include <fmt/format.h>

#include "base/checked.h"
#include "base/json.h"
#include "io/folder_lock.h"

namespace quantport {
namespace {

// A safetensors header is no longer (kMaxHeaderBytes and its length field).
constexpr uint64_t kMaxHeader = 100'000'008;

Json PieceJson(const Piece& piece) { return {piece.offset, piece.bytes}; }

Json ShardJson(const ShardChange& change) {
  Json json = {{"name", change.name},
               {"old_size", change.old_size},
               {"new_size", change.new_size},
               {"inserted", change.inserted},
               {"old_header", PieceJson(change.old_header)},
               {"new_header", PieceJson(change.new_header)},
               {"extents", Json::array()},
               {"patches", Json::array()}};
  for (const Extent& extent : change.extents)
    json["extents"].push_back({extent.logical, extent.physical, extent.bytes});
  for (const Patch& patch : change.patches)
    json["patches"].push_back({patch.offset, PieceJson(patch.old_bytes), PieceJson(patch.new_bytes)});
  return json;
}

// Reads members and remembers whether one was not as it must be, so that the caller asks once.
class Reader {
 public:
  explicit Reader(uint64_t pieces_end) : pieces_end_(pieces_end) {}

  bool ok() const { return ok_; }
  void Require(bool condition) { ok_ &= condition; }

  const Json& Member(const Json& object, const char* key) {
    static const Json kNone;
    const auto it = object.is_object() ? object.find(key) : object.end();
    const bool found = object.is_object() && it != object.end();
    Require(found);
    return found ? *it : kNone;
  }

  uint64_t Number(const Json& json) {
    const bool number = json.is_number_unsigned();
    Require(number);
    return number ? json.get<uint64_t>() : 0;
  }

  bool Flag(const Json& json) {
    Require(json.is_boolean());
    return json.is_boolean() && json.get<bool>();
  }

  // A plain name inside the folder, and none of those that the change itself has there.
  std::string Name(const Json& json) {
    std::string name = json.is_string() ? json.get<std::string>() : std::string();
    Require(!name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
            name.find('\0') == std::string::npos && !name.starts_with(".quantport-"));
    return name;
  }

  Piece PieceOf(const Json& json) {
    if (!json.is_array() || json.size() != 2) {
      Require(false);
      return {};
    }
    const Piece piece{Number(json[0]), Number(json[1])};
    const auto end = CheckedAdd(piece.offset, piece.bytes);
    Require(end && *end <= pieces_end_);
    return piece;
  }

  const Json& List(const Json& object, const char* key) {
    static const Json kEmpty = Json::array();
    const Json& list = Member(object, key);
    Require(list.is_array());
    return list.is_array() ? list : kEmpty;
  }

 private:
  uint64_t pieces_end_;
  bool ok_ = true;
};

Extent ReadExtent(Reader* reader, const Json& json) {
  if (!json.is_array() || json.size() != 3) {
    reader->Require(false);
    return {};
  }
  const Extent extent{reader->Number(json[0]), reader->Number(json[1]), reader->Number(json[2])};
  reader->Require(CheckedAdd(extent.logical, extent.bytes) && CheckedAdd(extent.physical, extent.bytes));
  return extent;
}

Patch ReadPatch(Reader* reader, const Json& json, const ShardChange& change) {
  if (!json.is_array() || json.size() != 3) {
    reader->Require(false);
    return {};
  }
  const Patch patch{reader->Number(json[0]), reader->PieceOf(json[1]), reader->PieceOf(json[2])};
  const auto end = CheckedAdd(patch.offset, patch.new_bytes.bytes);
  reader->Require(patch.new_bytes.bytes <= kMaxPatchBytes && end && *end <= change.new_size &&
                  patch.offset >= change.new_header.bytes &&
                  (patch.old_bytes.bytes == 0 || patch.old_bytes.bytes == patch.new_bytes.bytes));
  return patch;
}

ShardChange ReadShard(Reader* reader, const Json& json) {
  ShardChange change;
  change.name = reader->Name(reader->Member(json, "name"));
  change.old_size = reader->Number(reader->Member(json, "old_size"));
  change.new_size = reader->Number(reader->Member(json, "new_size"));
  change.inserted = reader->Number(reader->Member(json, "inserted"));
  change.old_header = reader->PieceOf(reader->Member(json, "old_header"));
  change.new_header = reader->PieceOf(reader->Member(json, "new_header"));
  const auto grown = CheckedAdd(change.old_size, change.inserted);
  const auto header = CheckedAdd(change.old_header.bytes, change.inserted);
  reader->Require(grown && *grown <= change.new_size && header && *header == change.new_header.bytes &&
                  change.old_header.bytes >= sizeof(uint64_t) && change.old_header.bytes <= change.old_size &&
                  change.new_header.bytes <= kMaxHeader);
  for (const Json& extent : reader->List(json, "extents")) change.extents.push_back(ReadExtent(reader, extent));
  // Else the blocks that are found could be as many as the product of both numbers.
  reader->Require(AreDisjoint(change.extents));
  for (const Json& patch : reader->List(json, "patches")) change.patches.push_back(ReadPatch(reader, patch, change));
  return change;
}

}  // namespace

std::string JournalJson(const Journal& journal) {
  Json json = {{"shards", Json::array()}, {"replacements", Json::array()}};
  for (const ShardChange& change : journal.shards) json["shards"].push_back(ShardJson(change));
  for (const Replacement& replacement : journal.replacements) {
    json["replacements"].push_back(
        {{"name", replacement.name}, {"had_old", replacement.had_old}, {"has_new", replacement.has_new}});
  }
  return DumpJson(json, {.indent = -1});
}

Result<Journal> ParseJournal(std::string_view text, uint64_t pieces_end, std::string_view file) {
  auto json = ParseJson(text, file, ErrorKind::kUnfinishedChange);
  if (!json) return json.errors();
  Reader reader(pieces_end);
  Journal journal;
  for (const Json& change : reader.List(*json, "shards")) journal.shards.push_back(ReadShard(&reader, change));
  for (const Json& item : reader.List(*json, "replacements")) {
    journal.replacements.push_back({reader.Name(reader.Member(item, "name")),
                                    reader.Flag(reader.Member(item, "had_old")),
                                    reader.Flag(reader.Member(item, "has_new"))});
  }
  if (!reader.ok()) {
    return Error{ErrorKind::kUnfinishedChange,
                 "the journal says what no change of this program would",
                 std::string(file),
                 {},
                 "it can't be used; take the checkpoint from where it came"};
  }
  return journal;
}

}  // namespace quantport
