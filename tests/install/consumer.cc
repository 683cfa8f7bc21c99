#include <cstdio>

#include "quantport/quantport.h"

int main() {
  const auto report = quantport::Inspect("/nonexistent-checkpoint");
  if (report.ok()) return 1;
  std::puts(report.errors().front().ToString().c_str());
  return 0;
}
