#include "verne/ops/run.hpp"

#if VERNE_WITH_CUDA
#include <nvtx3/nvToolsExt.h>
#endif

namespace verne {

#if VERNE_WITH_CUDA
ProfileRange::ProfileRange(const Queue& queue, const char* operation)
    : open_(queue.kind() == QueueKind::cuda) {
  if (open_) nvtxRangePushA(operation);
}
ProfileRange::~ProfileRange() {
  if (open_) nvtxRangePop();
}
#else
ProfileRange::ProfileRange(const Queue&, const char*) : open_(false) {}
ProfileRange::~ProfileRange() = default;
#endif

}  // namespace verne
