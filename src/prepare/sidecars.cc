#include "prepare/sidecars.h"

namespace quantport {

void PlanCopies(const Checkpoint& checkpoint, Plan* plan) {
  for (const std::string& name : checkpoint.sidecars) {
    if (!plan->texts.contains(name)) plan->copies.push_back({name, checkpoint.folder->AddressOf(name)});
  }
}

}  // namespace quantport
