#include "io/direct.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "io/retry.h"

namespace quantport {
DirectDescriptor::DirectDescriptor(const File& file, int mode)
    : descriptor_(file.AnotherDescriptor(mode | O_DIRECT | O_NONBLOCK)) {}

DescriptorUse DirectDescriptor::Use() {
  if (!usable()) return nullptr;
  auto use = descriptor_->Use();
  if (use) return *use;
  // EINVAL where the file system has no direct transfers. Whatever else it is, the other descriptor will tell.
  GiveUp();
  return nullptr;
}

DirectReader::DirectReader(const File* file) : file_(file), direct_(*file, O_RDONLY) {}

Status DirectReader::ReadBlocks(std::span<std::byte> out, uint64_t offset, uint64_t needed) {
  uint64_t done = 0;
  const DescriptorUse use = direct_.Use();
  while (use != nullptr && done < needed) {
    const ssize_t n = Retry(
        [&] { return ::pread(use->get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done)); });
    if (n < 0 && errno != EINVAL) return SystemError("read", file_->path());
    if (n < 0) direct_.GiveUp();
    if (n <= 0) break;
    const auto count = static_cast<uint64_t>(n);
    if (done + count >= needed) return {};
    if (count < kDirectBlock) break;
    done += count / kDirectBlock * kDirectBlock;
  }
  if (done >= needed) return {};
  return file_->ReadAt(out.subspan(done, needed - done), offset + done);
}

DirectWriter::DirectWriter(File* file) : file_(file), direct_(*file, O_WRONLY) {}

Status DirectWriter::WriteBlocks(std::span<const std::byte> data, uint64_t offset) {
  const DescriptorUse use = direct_.Use();
  while (use != nullptr && !data.empty()) {
    const ssize_t n = Retry([&] { return ::pwrite(use->get(), data.data(), data.size(), static_cast<off_t>(offset)); });
    const Error error = SystemError("write", file_->path());
    const bool refused = n < 0 && errno == EINVAL;
    direct_.Changed(use);
    if (n < 0 && !refused) return error;
    if (refused) direct_.GiveUp();
    if (n < static_cast<ssize_t>(kDirectBlock)) break;
    const uint64_t done = static_cast<uint64_t>(n) / kDirectBlock * kDirectBlock;
    data = data.subspan(done);
    offset += done;
  }
  return file_->WriteAt(data, offset);
}

}  // namespace quantport
