// A library that CUDA loads into a program (CUDA_INJECTION64_PATH) to write down when each kernel, copy and
// memset began and ended: a line each, "start_ns,end_ns,stream,name", in $VERNE_KERNEL_TRACE. kernel_gaps.py
// reads it.
//   g++ -O2 -shared -fPIC kernel_trace.cpp -o kernel_trace.so -I$CUDA/include -L$CUDA/lib64 -lcupti
#include <cupti.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

constexpr std::size_t kBufferBytes = 256 << 10;  // small, so that little is lost where the program is killed
std::FILE* out = nullptr;

void hand_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* max_records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = kBufferBytes;
  *max_records = 0;
}

template <class Record>
void write(const Record& record, const char* name) {
  std::fprintf(out, "%llu,%llu,%u,%.100s\n", static_cast<unsigned long long>(record.start),
               static_cast<unsigned long long>(record.end), record.streamId, name);
}

void take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid) {
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto& kernel = *reinterpret_cast<const CUpti_ActivityKernel9*>(record);
      write(kernel, kernel.name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto& copy = *reinterpret_cast<const CUpti_ActivityMemcpy5*>(record);
      write(copy, copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD   ? "copy to device"
                  : copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOH ? "copy to host"
                                                                     : "copy on device");
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      write(*reinterpret_cast<const CUpti_ActivityMemset4*>(record), "memset");
    }
  }
  std::fflush(out);
  std::free(buffer);
}

void finish() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  std::fclose(out);
}

}  // namespace

extern "C" int InitializeInjection() {
  const char* path = std::getenv("VERNE_KERNEL_TRACE");
  out = path != nullptr ? std::fopen(path, "w") : nullptr;
  if (out == nullptr) return 0;
  cuptiActivityRegisterCallbacks(hand_buffer, take_buffer);
  cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
  cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY);
  cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET);
  cuptiActivityFlushPeriod(200);
  std::atexit(finish);
  return 1;
}
