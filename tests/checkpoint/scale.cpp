// What a save and a start cost a rank among 1,024, with every rank's plan made in this one process: time of
// one core, memory, bytes written and read. Prints the figures and fails where one is past its bound.
#include <fmt/format.h>
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "../io/many_ranks.hpp"
#include "flat_layout.hpp"
#include "layout.hpp"
#include "opened.hpp"
#include "testing.hpp"
#include "verne/base/hash.hpp"
#include "verne/io/file.hpp"

// Every allocation of the process is counted, HDF5's among them.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void __libc_free(void*);
}

namespace {

std::int64_t live = 0, peak = 0;

void* counted(void* memory) {
  if (memory != nullptr) live += static_cast<std::int64_t>(malloc_usable_size(memory));
  peak = std::max(peak, live);
  return memory;
}
void forget(void* memory) {
  if (memory != nullptr) live -= static_cast<std::int64_t>(malloc_usable_size(memory));
}

}  // namespace

extern "C" {
void* malloc(std::size_t bytes) {
  return counted(__libc_malloc(bytes));
}
void* calloc(std::size_t count, std::size_t bytes) {
  return counted(__libc_calloc(count, bytes));
}
void* realloc(void* memory, std::size_t bytes) {
  forget(memory);
  return counted(__libc_realloc(memory, bytes));
}
void free(void* memory) {
  forget(memory);
  __libc_free(memory);
}
}

namespace verne {
namespace {

using testing::DenseModel;
using testing::FlatLayout;
using testing::FlatPool;
using testing::FlatTensor;

constexpr int kRanks = 1024;
constexpr double kMaxSeconds = 5;
constexpr std::int64_t kMaxBytes = 200'000'000;

/// What the phases cost each rank. What all ranks have alike is made once, and counted for each.
class Costs {
 public:
  /// Runs a rank's work; what it keeps counts until the end.
  template <class Work>
  void measure(int rank, const Work& work) {
    Cost& cost = costs_[static_cast<std::size_t>(rank)];
    const std::int64_t before = live;
    peak = live;
    const double start = now();
    work();
    cost.seconds += now() - start;
    cost.most_bytes = std::max(cost.most_bytes, cost.kept_bytes + peak - before);
    cost.kept_bytes += live - before;
  }
  template <class Work>
  void measure_for_all(const Work& work) {
    measure(0, work);
    for (std::size_t rank = 1; rank < costs_.size(); ++rank) costs_[rank] = costs_[0];
  }

  /// Prints rank 0's figures and the largest of the others; whether they are in bounds.
  bool report(const std::string& what) const {
    Cost others;
    for (std::size_t rank = 1; rank < costs_.size(); ++rank) {
      others.seconds = std::max(others.seconds, costs_[rank].seconds);
      others.most_bytes = std::max(others.most_bytes, costs_[rank].most_bytes);
    }
    std::printf("  %-28s rank 0 %.2f s, %.0f MB; others at most %.2f s, %.0f MB\n", what.c_str(),
                costs_[0].seconds, static_cast<double>(costs_[0].most_bytes) / 1e6, others.seconds,
                static_cast<double>(others.most_bytes) / 1e6);
    const auto fits = [](const Cost& cost) {
      return cost.seconds < kMaxSeconds && cost.most_bytes < kMaxBytes;
    };
    return fits(costs_[0]) && fits(others);
  }

 private:
  struct Cost {
    double seconds = 0;
    std::int64_t kept_bytes = 0, most_bytes = 0;
  };
  static double now() {
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  std::vector<Cost> costs_ = std::vector<Cost>(kRanks);
};

/// Prints a quantity's least, mean and largest value over the ranks; whether the largest is at most `bound`
/// times the mean.
bool report_spread(const std::string& what, const std::vector<std::int64_t>& bytes, double bound) {
  double sum = 0;
  for (const std::int64_t one : bytes) sum += static_cast<double>(one);
  const double mean = sum / static_cast<double>(bytes.size());
  const auto [least, most] = std::minmax_element(bytes.begin(), bytes.end());
  std::printf("  %-28s %.1f GB; a rank %.0f to %.0f MB, %.3f of the mean at most\n", what.c_str(), sum / 1e9,
              static_cast<double>(*least) / 1e6, static_cast<double>(*most) / 1e6,
              static_cast<double>(*most) / mean);
  return static_cast<double>(*most) <= bound * mean;
}

/// A model and what each rank owns of it.
struct Case {
  std::string name;
  std::function<std::vector<TensorInfo>(DType)> tensors;
  std::function<FlatLayout(int rank)> layout;
};

Case llama_70b() {
  const DenseModel model{
      .layers = 80, .hidden = 8192, .intermediate = 28'672, .kv = 1024, .vocabulary = 128'256};
  return {"Llama-3.1-70B, tensor 8 x data 128", [=](DType dtype) { return model.tensors(dtype); },
          [=](int rank) { return model.layout(rank, 8, kRanks / 8); }};
}

/// DeepSeek-V3's tensors: experts over 64 groups of 16 ranks, everything else over all ranks.
struct MixtureModel {
  static constexpr int kLayers = 61, kDense = 3, kExperts = 256, kGroups = 64;

  static std::vector<FlatTensor> shared_tensors() {
    std::vector<FlatTensor> tensors{{"model.embed_tokens.weight", {129'280, 7168}},
                                    {"lm_head.weight", {129'280, 7168}}};
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string at = fmt::format("model.layers.{}.", layer);
      for (const auto& [name, shape] : std::initializer_list<std::pair<const char*, Shape>>{
               {"self_attn.q_a_proj.weight", {1536, 7168}},
               {"self_attn.q_b_proj.weight", {24'576, 1536}},
               {"self_attn.kv_a_proj_with_mqa.weight", {576, 7168}},
               {"self_attn.kv_b_proj.weight", {32'768, 512}},
               {"self_attn.o_proj.weight", {7168, 16'384}},
               {"self_attn.q_a_layernorm.weight", {1536}},
               {"self_attn.kv_a_layernorm.weight", {512}},
               {"input_layernorm.weight", {7168}},
               {"post_attention_layernorm.weight", {7168}}})
        tensors.push_back({at + name, shape});
      const std::int64_t width = layer < kDense ? 18'432 : 2048;
      const std::string mlp = at + (layer < kDense ? "mlp." : "mlp.shared_experts.");
      tensors.push_back({mlp + "gate_proj.weight", {width, 7168}});
      tensors.push_back({mlp + "up_proj.weight", {width, 7168}});
      tensors.push_back({mlp + "down_proj.weight", {7168, width}});
      if (layer < kDense) continue;
      tensors.push_back({at + "mlp.gate.weight", {kExperts, 7168}});
      tensors.push_back({at + "mlp.gate.e_score_correction_bias", {kExperts}});
    }
    return tensors;
  }
  static std::vector<FlatTensor> experts(int first, int count) {
    std::vector<FlatTensor> tensors;
    for (int layer = kDense; layer < kLayers; ++layer) {
      for (int expert = first; expert < first + count; ++expert) {
        const std::string at = fmt::format("model.layers.{}.mlp.experts.{}.", layer, expert);
        tensors.push_back({at + "gate_proj.weight", {2048, 7168}});
        tensors.push_back({at + "up_proj.weight", {2048, 7168}});
        tensors.push_back({at + "down_proj.weight", {7168, 2048}});
      }
    }
    return tensors;
  }
  static std::vector<TensorInfo> tensors(DType dtype) {
    std::vector<TensorInfo> infos;
    for (const auto& list : {shared_tensors(), experts(0, kExperts)})
      for (const FlatTensor& tensor : list) infos.push_back({tensor.name, dtype, tensor.shape});
    return infos;
  }
  static FlatLayout layout(int rank) {
    constexpr int kEach = kExperts / kGroups;
    return FlatLayout(
        {FlatPool{shared_tensors(), 0, 1, rank, kRanks},
         FlatPool{experts(rank % kGroups * kEach, kEach), 0, 1, rank / kGroups, kRanks / kGroups}});
  }
};

Case deepseek_v3() {
  return {"DeepSeek-V3, expert 64 x expert data 16", MixtureModel::tensors, MixtureModel::layout};
}

/// A rank's parts of the groups, as blocks of `tensors`; memory that nobody touches.
PartBlocks blocks_of(const FileTensors& tensors, const FlatLayout& layout,
                     std::span<const CheckpointGroup> groups) {
  std::vector<TensorPart> parts;
  std::vector<std::size_t> tensor_of;
  for (const CheckpointGroup group : groups) {
    const DType dtype = group == CheckpointGroup::model ? DType::bf16 : DType::f32;
    const auto list = tensors.tensors(group);
    const Tensor local(reinterpret_cast<std::byte*>(64), dtype, {layout.owned_elements()});
    for (TensorPart& part : layout.parts(dtype, local)) {
      const auto at =
          std::lower_bound(list.begin(), list.end(), part.name,
                           [](const TensorInfo& info, const std::string& name) { return info.name < name; });
      tensor_of.push_back(tensors.first(group) + static_cast<std::size_t>(at - list.begin()));
      parts.push_back(std::move(part));
    }
  }
  return {tensors.index(), parts, tensor_of};
}

std::int64_t bytes_of_block(const BlockIndex& index, std::int64_t block) {
  const BlockIndex::Place place = index.place(block);
  return block_bytes(index.tensors()[place.tensor], place.block);
}
std::int64_t bytes_of_share(const BlockIndex& index, const BlockShare& share) {
  return bytes_of(index.tensor_of(share.block).dtype, share.elements);
}

constexpr std::array kOptimizer{CheckpointGroup::master, CheckpointGroup::exp_avg,
                                CheckpointGroup::exp_avg_sq};

ByGroup<std::vector<TensorInfo>> groups_of(const Case& one) {
  return {one.tensors(DType::bf16), one.tensors(DType::f32), one.tensors(DType::f32),
          one.tensors(DType::f32)};
}

bool simulate_save(const Case& one, const std::filesystem::path& path) {
  Costs costs;
  std::optional<FileTensors> tensors;
  costs.measure_for_all([&] { tensors.emplace(groups_of(one)); });
  const BlockIndex& index = tensors->index();
  std::vector<ByRank<BlockShare>> sent(kRanks);
  std::vector<std::int64_t> written(kRanks), read_back(kRanks), writes(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    costs.measure(rank, [&] {
      const PartBlocks parts = blocks_of(*tensors, one.layout(rank), kAllCheckpointGroups);
      sent[r] = shares_by_home(parts.shares(), kRanks);
      for (const BlockShare& share : parts.shares()) written[r] += bytes_of_share(index, share);
    });
  }
  for (int rank = 0; rank < kRanks; ++rank) {
    costs.measure(rank, [&] {
      for (const std::int64_t block : divided_blocks(index, rank, kRanks, testing::received_by(rank, sent)))
        read_back[static_cast<std::size_t>(rank)] += bytes_of_block(index, block);
    });
  }
  // Rank 0 lays out and, at the end, has all checksums.
  costs.measure(0, [&] {
    CheckpointState state;
    state.values["step"] = 1;
    const SideFiles side_files{"{}", {}};
    const FileLayout layout = lay_out(*tensors, {state, side_files, {}}, path.string());
    const File file = File::create(path);
    layout.image.write_to(file);
    std::filesystem::resize_file(path, static_cast<std::uintmax_t>(layout.image.size()));
    const std::vector<std::uint64_t> checksums(static_cast<std::size_t>(index.blocks()));
    const std::uint64_t digest = xxh3(std::as_bytes(std::span(checksums)));
    file.write_at(layout.digest_at, std::as_bytes(std::span(&digest, 1)));
  });
  bool good = costs.report("save");
  good = report_spread("written", written, 1.01) && good;
  return report_spread("read back for checksums", read_back, 1.1) && good;
}

bool simulate_start(const Case& one, const std::filesystem::path& path) {
  Costs costs;
  std::string packed;
  costs.measure_for_all([&] {
    const OpenedCheckpoint opened = unpack(pack(open_checkpoint(path)), "");
    packed.clear();
  });
  std::optional<FileTensors> tensors;
  costs.measure_for_all([&] { tensors.emplace(groups_of(one)); });
  const BlockIndex& index = tensors->index();
  std::vector<std::int64_t> read(kRanks), sent(kRanks), received(kRanks);
  std::vector<PartBlocks> wanted;
  wanted.reserve(kRanks);
  const auto each_rank = [&](const auto& work) {
    for (int rank = 0; rank < kRanks; ++rank) costs.measure(rank, [&] { work(rank); });
  };
  each_rank([&](int rank) { wanted.push_back(blocks_of(*tensors, one.layout(rank), kOptimizer)); });
  const std::vector<ReadPlan> plans = testing::plan_reads(wanted, each_rank);
  std::size_t messages = 0;
  for (std::size_t r = 0; r < kRanks; ++r) {
    for (const ReadPlan::Read& one_read : plans[r].reads) {
      read[r] += bytes_of_block(index, one_read.block);
      messages += one_read.requests.size();
      for (const BlockRequest& request : one_read.requests)
        sent[r] += bytes_of(index.tensor_of(one_read.block).dtype, elements_of(request));
    }
    std::map<std::int64_t, std::int64_t> elements;
    for (const BlockShare& share : wanted[r].shares()) elements[share.block] = share.elements;
    for (const ReadPlan::Receive& receive : plans[r].receives)
      received[r] += bytes_of(index.tensor_of(receive.block).dtype, elements[receive.block]);
  }
  bool good = costs.report("start");
  good = report_spread("read", read, 1.15) && good;
  good = report_spread("sent", sent, 2) && good;
  good = report_spread("received", received, 2) && good;
  std::printf("  %-28s %.1f\n", "messages for a block",
              static_cast<double>(messages) / static_cast<double>(index.blocks()));
  return good;
}

bool simulate(const Case& one, const std::filesystem::path& folder) {
  const std::size_t count = one.tensors(DType::bf16).size();
  std::printf("%s: %zu tensors, %zu datasets, %d ranks\n", one.name.c_str(), count, 4 * count, kRanks);
  const std::filesystem::path path = folder / "checkpoint.h5";
  const bool saved = simulate_save(one, path), started = simulate_start(one, path);
  std::printf("  %s\n", saved && started ? "within bounds" : "OUT OF BOUNDS");
  std::fflush(stdout);
  return saved && started;
}

}  // namespace
}  // namespace verne

int main() {
  using namespace verne;
  const testing::TemporaryDirectory directory;
  const bool dense = simulate(llama_70b(), directory.path()),
             mixture = simulate(deepseek_v3(), directory.path());
  return dense && mixture ? EXIT_SUCCESS : EXIT_FAILURE;
}
