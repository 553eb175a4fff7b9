#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "testing.hpp"
#include "verne/checkpoint/checkpoint.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/io/load.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {

/// How a rank's part of a tensor is cut out.
/// `spread`: columns, with room between the rows in local memory.
enum class Cut { rows, columns, spread, flat, whole };

/// Who has what is not cut: everybody, who wants it, or the last rank, who owns it.
enum class Holders { all, one };

/// Element i of tensor `seed`; bf16 holds it exactly.
inline float value_at(int seed, std::int64_t i) {
  return static_cast<float>((i * 7 + seed * 31) % 251 - 125) / 4;
}

/// Parts of tensors, and their memory.
struct Parts {
  std::vector<Buffer> buffers;
  std::vector<TensorPart> parts;

  /// Rank `rank` of `size` holds its share of [rows, columns] as `local`, stored as `stored`.
  void add(Queue& queue, const std::string& name, std::int64_t rows, std::int64_t columns, DType stored,
           DType local, Cut cut, int rank, int size, Holders holders = Holders::all) {
    const std::int64_t begin_row = rows * rank / size, end_row = rows * (rank + 1) / size;
    const std::int64_t begin_column = columns * rank / size, end_column = columns * (rank + 1) / size;
    const std::int64_t begin = rows * columns * rank / size, end = rows * columns * (rank + 1) / size;
    ElementRuns runs;
    switch (cut) {
      case Cut::rows:
        runs = {.global = begin_row * columns, .length = (end_row - begin_row) * columns};
        break;
      case Cut::columns:
      case Cut::spread:
        runs = {.global = begin_column,
                .length = end_column - begin_column,
                .count = rows,
                .global_stride = columns,
                .local_stride = end_column - begin_column + (cut == Cut::spread ? 3 : 0)};
        break;
      case Cut::flat:
        runs = {.global = begin, .length = end - begin};
        break;
      case Cut::whole:
        runs = {.length = rows * columns};
        break;
    }
    if (cut == Cut::whole && holders == Holders::one && rank != size - 1) runs.length = 0;
    const std::int64_t count = runs.length == 0 ? 0 : (runs.count - 1) * runs.local_stride + runs.length;
    buffers.emplace_back(queue, local, Shape{std::max<std::int64_t>(count, 1)}, MemoryKind::weights);
    parts.push_back({name, stored, Shape{rows, columns}, buffers.back().tensor(), {}});
    if (count > 0) parts.back().runs.push_back(runs);
  }

  /// Calls visit(local element, global element) for all that part `i` holds.
  template <class Visit>
  void for_elements(std::size_t i, const Visit& visit) const {
    for (const ElementRuns& run : parts[i].runs) {
      for (std::int64_t k = 0; k < run.count; ++k) {
        for (std::int64_t e = 0; e < run.length; ++e) {
          visit(run.local + k * run.local_stride + e, run.global + k * run.global_stride + e);
        }
      }
    }
  }

  void fill(int seed) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const Tensor& local = parts[i].local;
      for_elements(i, [&](std::int64_t at, std::int64_t element) {
        const float value = value_at(seed + static_cast<int>(i), element);
        if (local.dtype() == DType::bf16)
          local.data<bf16>()[at] = bf16(value);
        else
          local.data<float>()[at] = value;
      });
    }
  }

  /// Elements that do not hold what `fill(seed)` puts there.
  std::int64_t wrong(int seed) const {
    std::int64_t count = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const Tensor& local = parts[i].local;
      for_elements(i, [&](std::int64_t at, std::int64_t element) {
        const float found = local.dtype() == DType::bf16 ? static_cast<float>(local.data<bf16>()[at])
                                                         : local.data<float>()[at];
        count += found != value_at(seed + static_cast<int>(i), element);
      });
    }
    return count;
  }
};

inline constexpr std::int64_t kBigRows = 2'100,
                              kBigColumns = 2'060;  // more than one block of 16 MiB as float32

inline constexpr std::int64_t kFewRows = 37;

/// Three tensors: one of `big_rows` rows, one with fewer rows than ranks, one bias-like.
inline Parts make_parts(Queue& queue, DType stored, DType local, Cut cut, int rank, int size,
                        std::int64_t big_rows, Holders holders) {
  Parts parts;
  const auto add = [&](const char* name, std::int64_t rows, std::int64_t columns, Cut own_cut) {
    parts.add(queue, name, rows, columns, stored, local, own_cut, rank, size, holders);
  };
  add("model.big.weight", big_rows, kBigColumns, cut);
  add("model.layers.0.small.weight", 3, 5, cut);
  add("model.norm.weight", 1, 64, cut == Cut::flat ? Cut::flat : Cut::whole);
  return parts;
}

inline GroupContent group_of(const Parts& parts) {
  GroupContent group{{}, parts.parts};
  for (const TensorPart& part : parts.parts) group.tensors.push_back({part.name, part.dtype, part.shape});
  return group;
}

inline CheckpointContent make_content(const Parts& model, const Parts& master, const Parts& exp_avg,
                                      const Parts& exp_avg_sq, std::int64_t step) {
  CheckpointContent content{
      group_of(model), group_of(master), group_of(exp_avg), group_of(exp_avg_sq), {}, {}, {}};
  content.state.values = {{"step", step}, {"consumed_samples", step * 8}, {"layout", "tensor=2"}};
  content.side_files = {"{\"model_type\": \"llama\"}\n",
                        {{"tokenizer.json", "{}"}, {"generation_config.json", "{}\n"}}};
  return content;
}

/// A checkpoint of one process: bf16 weights, and float32 optimizer state where asked for.
inline void save_alone(const std::filesystem::path& path, std::int64_t step, CheckpointKind kind,
                       int seed = 0, std::int64_t big_rows = kFewRows) {
  const HostGroup alone;
  CpuQueue queue;
  const auto whole = [&](DType type) {
    Parts parts = make_parts(queue, type, type, Cut::whole, 0, 1, big_rows, Holders::one);
    parts.fill(seed);
    return parts;
  };
  const Parts model = whole(DType::bf16);
  const Parts optimizer = kind == CheckpointKind::resumable ? whole(DType::f32) : Parts();
  CheckpointSaver(alone).save(path, queue, make_content(model, optimizer, optimizer, optimizer, step));
}

}  // namespace verne::testing
