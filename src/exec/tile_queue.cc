#include "exec/tile_queue.h"

namespace quantport {

TileQueue::TileQueue(std::vector<TileJob> jobs, size_t room) : jobs_(std::move(jobs)), room_(room), free_(room) {
  for (const TileJob& job : jobs_) {
    kept_.push_back(job.measured && job.count <= room_);
    unfinished_.push_back(job.measured ? job.count : 0);
  }
}

bool TileQueue::CanStart() const {
  return next_job_ < jobs_.size() && (next_tile_ > 0 || !kept_[next_job_] || free_ >= jobs_[next_job_].count);
}

TileTask TileQueue::Start() {
  const TileJob& job = jobs_[next_job_];
  if (next_tile_ == 0 && kept_[next_job_]) free_ -= job.count;
  const TileTask task = {next_job_, job.first + next_tile_, job.measured ? TilePass::kMeasure : TilePass::kEncode,
                         kept_[next_job_]};
  if (++next_tile_ == job.count) {
    ++next_job_;
    next_tile_ = 0;
  }
  return task;
}

std::optional<TileTask> TileQueue::Next() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    std::optional<TileTask> task;
    // Quantizing first: it gives memory back.
    if (!ready_.empty()) {
      task = ready_.front();
      ready_.pop_front();
    } else if (CanStart()) {
      task = Start();
    }
    if (task) {
      ++running_;
      return task;
    }
    if (running_ == 0) return std::nullopt;
    changed_.wait(lock);
  }
  return std::nullopt;
}

bool TileQueue::Done(const TileTask& task) {
  const std::lock_guard lock(mutex_);
  if (task.pass != TilePass::kEncode) {
    // The task that was the last one goes on as the job's release.
    if (--unfinished_[task.job] == 0) return true;
  } else if (task.kept) {
    ++free_;
  }
  --running_;
  changed_.notify_all();
  return false;
}

void TileQueue::Release(const TileTask& task) {
  const std::lock_guard lock(mutex_);
  const TileJob& job = jobs_[task.job];
  const bool search = job.searched && task.pass == TilePass::kMeasure;
  unfinished_[task.job] = job.count;
  for (size_t i = 0; i < job.count; ++i)
    ready_.push_back({task.job, job.first + i, search ? TilePass::kSearch : TilePass::kEncode, kept_[task.job]});
  --running_;
  changed_.notify_all();
}

void TileQueue::Stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

}  // namespace quantport
