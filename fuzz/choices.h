// Reads choices off a fuzzer's input; behind its end everything is the first choice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quantport::fuzz {

class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t Byte() { return at_ < size_ ? data_[at_++] : 0; }
  bool Flag() { return (Byte() & 1) != 0; }
  uint64_t Below(uint64_t count) { return Byte() % count; }
  template <typename List>
  auto Of(const List& list) {
    return list[Below(list.size())];
  }
  bool AtEnd() const { return at_ >= size_; }
  // What no choice has taken yet.
  std::string_view Rest() const { return {reinterpret_cast<const char*>(data_) + at_, size_ - at_}; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

}  // namespace quantport::fuzz
