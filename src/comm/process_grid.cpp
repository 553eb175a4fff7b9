#include "verne/comm/process_grid.hpp"

#include <cmath>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

/// Ranks that one data replica takes; the largest number where it does not fit 64 bits.
std::int64_t dense_product(const ParallelSizes& sizes) {
  const std::int64_t two = std::int64_t{sizes.tensor} * sizes.context;
  return checked_multiply<std::int64_t>(two, sizes.pipeline)
      .value_or(std::numeric_limits<std::int64_t>::max());
}

bool dense_fits(const ParallelSizes& sizes, int ranks) {
  return dense_product(sizes) <= ranks && ranks % dense_product(sizes) == 0;
}

bool expert_fits(const ParallelSizes& sizes, int ranks) {
  return ranks / sizes.pipeline % (std::int64_t{sizes.expert_tensor} * sizes.expert) == 0;
}

std::vector<int> divisors(int number) {
  std::vector<int> found;
  for (int d = 1; d <= number; ++d) {
    if (number % d == 0) found.push_back(d);
  }
  return found;
}

/// How far one size is from another: a factor of 2 is as far whichever way it goes.
double distance(int from, int to) {
  return std::abs(std::log(static_cast<double>(to) / from));
}

/// The layout that fits and whose sizes differ from the wanted ones by the smallest product of factors; of
/// equally near ones the first with smaller sizes.
ParallelSizes nearest_layout(const ParallelSizes& wanted, int ranks) {
  constexpr double kTie = 1e-9;
  const std::vector<int> factors = divisors(ranks);
  ParallelSizes best{.data = ranks};
  double best_distance = std::numeric_limits<double>::infinity();
  for (const int tensor : factors) {
    for (const int context : factors) {
      for (const int pipeline : factors) {
        ParallelSizes dense{.tensor = tensor, .context = context, .pipeline = pipeline};
        if (!dense_fits(dense, ranks)) continue;
        dense.data = static_cast<int>(ranks / dense_product(dense));
        const double dense_distance = distance(wanted.tensor, tensor) + distance(wanted.context, context) +
                                      distance(wanted.pipeline, pipeline);
        if (dense_distance > best_distance - kTie) continue;
        for (const int expert_tensor : factors) {
          for (const int expert : factors) {
            ParallelSizes sizes = dense;
            sizes.expert_tensor = expert_tensor;
            sizes.expert = expert;
            if (!expert_fits(sizes, ranks)) continue;
            const double total = dense_distance + distance(wanted.expert_tensor, expert_tensor) +
                                 distance(wanted.expert, expert);
            if (total < best_distance - kTie) {
              best_distance = total;
              best = sizes;
            }
          }
        }
      }
    }
  }
  return best;
}

std::string product_text(const std::vector<std::pair<std::string_view, int>>& factors,
                         std::string_view empty) {
  std::string text;
  for (const auto& [name, size] : factors) {
    if (size != 1) text += fmt::format("{}{} {}", text.empty() ? "" : " × ", name, size);
  }
  return text.empty() ? std::string(empty) : text;
}

std::string layout_text(const ParallelSizes& sizes) {
  std::string text = product_text({{"tensor", sizes.tensor},
                                   {"context", sizes.context},
                                   {"data", sizes.data},
                                   {"pipeline", sizes.pipeline}},
                                  "one rank");
  const std::string expert =
      product_text({{"expert_tensor", sizes.expert_tensor}, {"expert", sizes.expert}}, "");
  return expert.empty() ? text : text + ", " + expert;
}

void check_positive(std::string_view key, int value) {
  require_user(value >= 1, "parallel.{} is {}; it must be at least 1", key, value);
}

}  // namespace

ProcessGrid::ProcessGrid(int rank, int ranks, ParallelSizes sizes)
    : rank_(rank), ranks_(ranks), sizes_(sizes) {
  require(ranks >= 1 && rank >= 0 && rank < ranks, "rank {} of {}", rank, ranks);
  check_positive("tensor", sizes.tensor);
  check_positive("context", sizes.context);
  check_positive("pipeline", sizes.pipeline);
  check_positive("expert", sizes.expert);
  check_positive("expert_tensor", sizes.expert_tensor);
  if (!dense_fits(sizes, ranks)) {
    throw_user_error(
        "the layout parallel.tensor={} × parallel.context={} × parallel.pipeline={} needs a multiple of {} "
        "ranks, but {} "
        "{} started; start such a number of ranks, or set the nearest layout that fits {}: {}",
        sizes.tensor, sizes.context, sizes.pipeline, dense_product(sizes), ranks, ranks == 1 ? "was" : "were",
        ranks, layout_text(nearest_layout(sizes, ranks)));
  }
  sizes_.data = static_cast<int>(ranks / dense_product(sizes));
  if (!expert_fits(sizes_, ranks)) {
    throw_user_error(
        "parallel.expert_tensor={} × parallel.expert={} = {} does not divide the {} ranks of one pipeline "
        "stage (tensor {} "
        "× context {} × data {}); the nearest layout that fits {} ranks: {}",
        sizes_.expert_tensor, sizes_.expert, std::int64_t{sizes_.expert_tensor} * sizes_.expert,
        ranks / sizes_.pipeline, sizes_.tensor, sizes_.context, sizes_.data, ranks,
        layout_text(nearest_layout(sizes_, ranks)));
  }
}

int ProcessGrid::expert_data_size() const {
  return ranks_ / (sizes_.pipeline * sizes_.expert_tensor * sizes_.expert);
}

int ProcessGrid::context_colour() const {
  return tensor() + sizes_.tensor * (data() + sizes_.data * pipeline());
}

int ProcessGrid::data_colour() const {
  return tensor() + sizes_.tensor * (context() + sizes_.context * pipeline());
}

int ProcessGrid::data_context_colour() const {
  return tensor() + sizes_.tensor * pipeline();
}

int ProcessGrid::pipeline_colour() const {
  return rank_ % (sizes_.tensor * sizes_.context * sizes_.data);
}

// The first stage's ranks are numbered below those of the stages between.
int ProcessGrid::embedding_colour() const {
  return is_first_stage() || is_last_stage() ? pipeline_colour() : rank_;
}

std::string ProcessGrid::text() const {
  return layout_text(sizes_);
}

}  // namespace verne
