#pragma once
#include "verne/nn/step.hpp"

namespace verne {

/// Keys [tokens, kv_heads, d] and values [tokens, kv_heads, dv] as attention reads them.
struct KeysValues {
  Tensor k, v;
};

/// The keys and values of all context ranks: gathered beside the computation, then put into the rows' order.
/// Without other ranks they are this rank's own. Memory is the step's scratch.
class KeyValueGather {
 public:
  /// Takes the memory. `own`: this rank's keys and values.
  KeyValueGather(Step& step, const KeysValues& own);
  /// The keys are rotated and the values there.
  void start(Step& step);
  KeysValues ready(Step& step);

 private:
  KeysValues own_;
  Tensor packed_, in_rank_order_;
  Pending pending_;
};

/// The other way: sums the gradients of all keys and values over the context ranks, beside the computation,
/// and gives each rank those of its own tokens. Not used without other ranks.
class KeyValueScatter {
 public:
  /// Starts. `gradient`: [all tokens, k's width + v's width], in the rows' order.
  KeyValueScatter(Step& step, const Tensor& gradient);
  /// Overwrites dk and dv [tokens, …] of this rank's tokens.
  void ready(Step& step, const KeysValues& own);

 private:
  Tensor in_rank_order_, own_;
  Pending pending_;
};

/// The halves of a matrix that has keys in its first columns and values in the others, cut as `like`'s are.
KeysValues halves_of(const Tensor& packed, const KeysValues& like);

}  // namespace verne
