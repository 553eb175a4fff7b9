#include "cuda/device.cuh"
#include "verne/ops/elementwise.hpp"

namespace verne {
namespace cuda {
namespace {

/// Rows and width of an elementwise operation; contiguous tensors count as one row.
struct Extent {
  std::int64_t rows, width;
};
Extent extent_of(std::initializer_list<Tensor> tensors) {
  const Tensor& first = *tensors.begin();
  const bool flat =
      std::all_of(tensors.begin(), tensors.end(), [](const Tensor& t) { return t.contiguous(); });
  return flat ? Extent{1, first.count()} : Extent{row_count(first), row_width(first)};
}

template <class T>
struct FillRows {
  T* y;
  std::int64_t stride;
  T value;
  template <int N>
  __device__ void run(std::int64_t row, std::int64_t column) const {
    Pack<T, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i) pack.value[i] = value;
    store_pack<N>(y + row * stride + column, pack);
  }
};

template <class To, class From>
struct CastRows {
  To* y;
  const From* x;
  std::int64_t y_stride, x_stride;
  template <int N>
  __device__ void run(std::int64_t row, std::int64_t column) const {
    float value[N];
    load<N>(value, x + row * x_stride + column);
    store<N>(y + row * y_stride + column, value);
  }
};

template <class T>
struct AddRows {
  T* y;
  const T *a, *b;
  template <int N>
  __device__ void run(std::int64_t, std::int64_t column) const {
    float left[N], right[N];
    load<N>(left, a + column);
    load<N>(right, b + column);
#pragma unroll
    for (int i = 0; i < N; ++i) left[i] += right[i];
    store<N>(y + column, left);
  }
};

template <class T>
struct NormalRows {
  T* y;
  std::int64_t stride;
  RandomSite site;
  float mean, deviation;
  std::int64_t first_row, first_column, row_length;
  template <int N>
  __device__ void run(std::int64_t row, std::int64_t column) const {
    const std::int64_t element = (first_row + row) * row_length + first_column + column;
    const RandomWords words = philox(site, static_cast<std::uint64_t>(element));
    const float radius = sqrtf(-2.0f * logf(uniform_open(words.word[0])));
    y[row * stride + column] =
        from_float<T>(mean + deviation * radius * cosf(6.283185307179586f * uniform_open(words.word[1])));
  }
};

template <class T>
void fill(CudaQueue& queue, const Fill& op, T value) {
  const auto [rows, width] = extent_of({op.y});
  for_access<T>(rows_aligned(kPack<T>, {op.y}), [&](auto access) {
    map_rows<access()>(queue, Fill::kName, FillRows<T>{pointer<T>(op.y), row_stride(op.y), value}, rows,
                       width);
  });
}

template <class Body>
void for_cast_storage(DType dtype, Body&& body) {
  if (dtype == DType::f16) {
    body(__half{});
  } else {
    for_storage(dtype, body);
  }
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// Memory bound: writes every element once. All of an H200's bandwidth.
void launch(CudaQueue& queue, const Fill& op) {
  const auto value = static_cast<float>(op.value);
  switch (op.y.dtype()) {
    case DType::f64:
      return fill<double>(queue, op, op.value);
    case DType::f32:
      return fill<float>(queue, op, value);
    case DType::bf16:
      return fill<bfloat16>(queue, op, __float2bfloat16_rn(value));
    case DType::f16:
      return fill<__half>(queue, op, __float2half_rn(value));
    default:
      throw InternalError(fmt::format("Fill of {} on CUDA", name(op.y.dtype())));
  }
}

// Memory bound: reads and writes every element once. All of an H200's bandwidth where the type narrows, 96 %
// as a strided copy, 42 % where it widens (a thread then writes two words that do not touch its neighbour's).
void launch(CudaQueue& queue, const Cast& op) {
  const auto [rows, width] = extent_of({op.y, op.x});
  for_cast_storage(op.y.dtype(), [&](auto to) {
    for_cast_storage(op.x.dtype(), [&](auto from) {
      using To = decltype(to);
      using From = decltype(from);
      using Narrow = std::conditional_t<sizeof(To) < sizeof(From), To, From>;
      for_access<Narrow>(rows_aligned(kPack<Narrow>, {op.y, op.x}), [&](auto access) {
        map_rows<access()>(queue, Cast::kName,
                           CastRows<To, From>{pointer<To>(op.y), pointer<const From>(op.x), row_stride(op.y),
                                              row_stride(op.x)},
                           rows, width);
      });
    });
  });
}

// Memory bound: 3 elements moved for one result. All of an H200's bandwidth.
void launch(CudaQueue& queue, const Add& op) {
  for_storage(op.y.dtype(), [&](auto storage) {
    using T = decltype(storage);
    // Contiguous: the alignment of the base alone counts.
    const std::int64_t n = op.y.count();
    const auto flat = [&](const Tensor& t) { return t.view(Shape{n}); };
    for_access<T>(rows_aligned(kPack<T>, {flat(op.y), flat(op.a), flat(op.b)}), [&](auto access) {
      map_rows<access()>(queue, Add::kName,
                         AddRows<T>{pointer<T>(op.y), pointer<const T>(op.a), pointer<const T>(op.b)}, 1, n);
    });
  });
}

// Bound by arithmetic: a philox block, a logarithm and a cosine an element. Runs once, where weights are
// made.
void launch(CudaQueue& queue, const RandomNormal& op) {
  const bool vector = op.y.rank() < 2;
  for_storage(op.y.dtype(), [&](auto storage) {
    using T = decltype(storage);
    map_rows<1>(queue, RandomNormal::kName,
                NormalRows<T>{pointer<T>(op.y), row_stride(op.y), op.site, static_cast<float>(op.mean),
                              static_cast<float>(op.deviation), op.first_row, op.first_column, op.row_length},
                vector ? 1 : op.y.size(0), vector ? op.y.count() : row_width(op.y));
  });
}

}  // namespace verne
