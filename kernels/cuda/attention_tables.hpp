#pragma once
#include <cstdint>
#include <span>

#include "verne/ops/attention.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::cuda {

/// What each token of one side sees of the other: tokens [begins[t], ends[t]), i32 [tokens] each, neither of
/// them ever decreasing.
struct VisibleTables {
  Tensor begins, ends;
};
/// Of each query, the keys that it sees.
void fill_visible_keys(CudaQueue& queue, const AttentionLayout& layout, std::int64_t window,
                       const VisibleTables& of_queries);
/// Of each key, the queries that see it.
void fill_visible_queries(CudaQueue& queue, const AttentionLayout& layout, std::int64_t window,
                          const VisibleTables& of_keys);

/// Zeros in the rows of dk and dv whose keys no query sees.
void zero_unseen_keys(CudaQueue& queue, const AttentionLayout& layout, std::int64_t window, const Tensor& dk,
                      const Tensor& dv);

/// Which tokens a table is about.
enum class Side { query, key };

/// An offset table gives where documents begin in a tensor of that side with rows `stride` elements apart.
struct OffsetTable {
  Side side;
  std::int64_t stride;
  friend auto operator<=>(const OffsetTable&, const OffsetTable&) = default;
};

/// Some of a layout's documents, in order, in the form that cuDNN takes: those of `longer_than` + 1 to
/// `longest` queries, then documents without tokens up to the tables' capacity. Keys that the window hides
/// from all of a document's queries are left out, and so are the keys of a document without queries.
struct DocumentTables {
  std::int64_t longer_than, longest;  ///< longer_than −1: all documents
  Tensor offsets;                     ///< i64 [offset tables, capacity + 1], the last one an end
  Tensor queries, keys;               ///< i32 [capacity]: lengths
};
void fill_document_tables(CudaQueue& queue, const AttentionLayout& layout, std::int64_t window,
                          std::span<const OffsetTable> offsets, const DocumentTables& tables);

}  // namespace verne::cuda
