#include "verne/infer/score.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "verne/comm/agree.hpp"
#include "verne/data/documents.hpp"
#include "verne/data/inputs.hpp"
#include "verne/host/hardware.hpp"
#include "verne/host/layout.hpp"
#include "verne/host/load_weights.hpp"
#include "verne/io/file.hpp"

namespace verne {
namespace {

/// Documents are scored this many tokens at a time, or one longer document alone.
constexpr std::int64_t kBatchTokens = 4096;

struct ScoredDocument {
  std::int64_t record = 0;
  Document document;
};

std::vector<ScoredDocument> read_documents(const Deck& deck, const ModelSource& model) {
  std::optional<Tokenizer> tokenizer;
  if (!deck.prepare.tokenizer.empty()) {
    const std::filesystem::path given = deck.prepare.tokenizer;
    tokenizer = Tokenizer::load(
        std::filesystem::exists(given) ? given : resolve_model_folder(deck.prepare.tokenizer));
  } else {
    tokenizer = model.tokenizer();
  }
  RenderOptions render{.chat_template = resolve_template(deck.prepare.template_, name(model.config().family)),
                       .train_on = deck.prepare.train_on};
  const auto& eos = model.config().eos_token_ids;
  if (!eos.empty() && eos.front() >= 0) render.model_eos_id = static_cast<TokenId>(eos.front());
  DocumentMaker maker(tokenizer, render,
                      {.input_key = deck.prepare.input_key,
                       .output_key = deck.prepare.output_key,
                       .vocab_size = model.config().vocab_size});
  std::vector<PrepareInput> inputs;
  for (const std::string& input : deck.score.input) inputs.push_back({input, std::nullopt});
  const InputFiles files(inputs, 0, 1);
  std::vector<ScoredDocument> documents;
  std::int64_t record = 0;
  files.for_each_line([&](const InputFiles::Source& source, const JsonlLine& line) {
    if (deck.score.limit > 0 && record >= deck.score.limit) return false;
    for (Document& document : maker.make(source.file, line).documents)
      documents.push_back({record, std::move(document)});
    ++record;
    return true;
  });
  for (const ScoredDocument& d : documents)
    for (TokenId id : d.document.tokens)
      require_user(id < model.config().vocab_size,
                   "record {}: token {} is not in the model's vocabulary of {}", d.record, id,
                   model.config().vocab_size);
  return documents;
}

/// Consecutive documents [first, last) that run together.
struct Group {
  std::size_t first = 0, last = 0;
  std::int64_t tokens = 0;
};

std::vector<Group> make_groups(const std::vector<ScoredDocument>& documents) {
  std::vector<Group> groups;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    const std::int64_t tokens = std::ssize(documents[i].document.tokens);
    if (groups.empty() || groups.back().tokens + tokens > kBatchTokens) groups.push_back({i, i, 0});
    groups.back().last = i + 1;
    groups.back().tokens += tokens;
  }
  return groups;
}

MicroBatch make_batch(std::span<const ScoredDocument> documents, const MicroBatchShape& shape) {
  MicroBatch batch{.rows = 1, .seq_length = shape.seq_length};
  const auto total = static_cast<std::size_t>(shape.seq_length);
  batch.tokens.resize(total);
  batch.targets.resize(total);
  batch.loss_mask.resize(total);
  batch.positions.resize(total);
  std::size_t at = 0;
  for (const ScoredDocument& scored : documents) {
    batch.document_starts.push_back(static_cast<std::int32_t>(at));
    const auto& tokens = scored.document.tokens;
    for (std::size_t t = 0; t < tokens.size(); ++t, ++at) {
      batch.tokens[at] = static_cast<std::int32_t>(tokens[t]);
      batch.positions[at] = static_cast<std::int32_t>(t);
      if (t + 1 == tokens.size()) continue;
      batch.targets[at] = static_cast<std::int32_t>(tokens[t + 1]);
      batch.loss_mask[at] = 1;
    }
  }
  if (at < total)
    batch.document_starts.push_back(static_cast<std::int32_t>(at));  // padding is a document of its own
  for (std::size_t t = at; t < total; ++t) batch.positions[t] = static_cast<std::int32_t>(t - at);
  batch.document_starts.resize(static_cast<std::size_t>(shape.document_capacity) + 1,
                               static_cast<std::int32_t>(total));
  return batch;
}

void append_line(std::string& text, const ScoredDocument& scored, std::span<const float> log_probability) {
  const auto& tokens = scored.document.tokens;
  const auto& mask = scored.document.loss_mask;
  double sum = 0;
  std::int64_t counted = 0;
  auto out = std::back_inserter(text);
  fmt::format_to(out, "{{\"index\": {}, \"tokens\": [{}], \"logprobs\": [", scored.record,
                 fmt::join(tokens, ", "));
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    if (t == 0) {
      fmt::format_to(out, "null");
      continue;
    }
    const float value = log_probability[t - 1];
    if (std::isfinite(value))
      fmt::format_to(out, ", {}", value);
    else
      fmt::format_to(out, ", null");
    if (!mask[t]) continue;
    sum += static_cast<double>(value);
    ++counted;
  }
  if (std::isfinite(sum))
    fmt::format_to(out, "], \"sum_logprob\": {}, \"counted_tokens\": {}}}\n", sum, counted);
  else
    fmt::format_to(out, "], \"sum_logprob\": null, \"counted_tokens\": {}}}\n", counted);
}

/// Of the ranks of a data rank one speaks, on the last stage, where the values are.
bool speaks(const ProcessGrid& grid) {
  return grid.is_last_stage() && grid.tensor() == 0 && grid.context() == 0;
}

/// Groups of documents as micro-batches, dealt out to the data ranks in turn.
class Share {
 public:
  Share(const std::vector<ScoredDocument>& documents, const std::vector<Group>& groups,
        const ProcessGrid& grid, const MicroBatchShape& shape)
      : documents_(documents),
        groups_(groups),
        shape_(shape),
        rank_(grid.data()),
        ranks_(grid.sizes().data) {}

  /// Micro-batches that this data rank has among the groups [first, first + count · data ranks).
  StepBatch batch(std::size_t first, std::int64_t count) const {
    std::int64_t own = 0;
    while (own < count && index(first, own) < groups_.size()) ++own;
    return {.counted_tokens = 1, .micro_batches = own, .micro_batch = [this, first](std::int64_t i) {
              return make_batch(documents_of(index(first, i)), shape_);
            }};
  }
  std::span<const ScoredDocument> documents_of(std::size_t group) const {
    return std::span(documents_).subspan(groups_[group].first, groups_[group].last - groups_[group].first);
  }
  std::size_t index(std::size_t first, std::int64_t i) const {
    return first + static_cast<std::size_t>(i) * static_cast<std::size_t>(ranks_) +
           static_cast<std::size_t>(rank_);
  }

 private:
  const std::vector<ScoredDocument>& documents_;
  const std::vector<Group>& groups_;
  MicroBatchShape shape_;
  int rank_, ranks_;
};

/// Lines of one pass, by micro-batch, from the rank of each data rank that speaks for it; in the groups'
/// order on rank 0. Collective.
std::string in_order(const HostGroup& world, const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += fmt::format("{} {}", line.size(), line);
  std::vector<std::vector<std::byte>> to(static_cast<std::size_t>(world.size()));
  const auto bytes = std::as_bytes(std::span(text));
  to[0].assign(bytes.begin(), bytes.end());
  const auto received = world.all_to_all(to);
  if (world.rank() != 0) return {};
  std::vector<std::string_view> left;  // by data rank, as ranks that speak are ordered
  for (const auto& part : received)
    if (!part.empty()) left.emplace_back(reinterpret_cast<const char*>(part.data()), part.size());
  std::string ordered;
  for (bool any = true; any;) {
    any = false;
    for (std::string_view& part : left) {
      if (part.empty()) continue;
      std::size_t size = 0;
      const auto end = std::from_chars(part.data(), part.data() + part.size(), size).ptr;
      part.remove_prefix(static_cast<std::size_t>(end - part.data()) + 1);
      ordered += part.substr(0, size);
      part.remove_prefix(size);
      any = true;
    }
  }
  return ordered;
}

}  // namespace

void score(const ScoreRequest& request) {
  const Deck& deck = request.deck;
  const HostGroup& world = request.session.world();
  const Machine machine = choose_machine(deck.run.device, request.session, request.threads);
  std::optional<ModelSource> model;
  ParallelLayout layout{.grid = ProcessGrid(world.rank(), world.size(), {})};
  std::vector<ScoredDocument> documents;
  HostOptions options{.dtype = deck.model.dtype == ModelDType::fp32 ? DType::f32 : DType::bf16,
                      .purpose = Purpose::inference,
                      .batch = {},
                      .trains = {},
                      .determinism = Determinism::deterministic};
  model = ModelSource::open(deck.model, world, [&](const std::string& line) {
    if (world.rank() == 0) log_info("{}", line);
  });
  agree_after(world, [&] {
    layout = make_layout(deck, model->config(), world.rank(), world.size()).parallel;
    documents = read_documents(deck, *model);
  });
  const std::vector<Group> groups = make_groups(documents);
  std::int64_t longest = 1, most_documents = 1;
  for (const Group& group : groups) {
    longest = std::max(longest, group.tokens);
    most_documents = std::max(most_documents, static_cast<std::int64_t>(group.last - group.first));
  }
  options.batch = {.rows = 1,
                   .seq_length = padded_length(layout, longest),
                   .table = DocumentTable::packed,
                   .document_capacity = most_documents + 1};
  HostPlan plan;
  agree_after(world, [&] {
    plan = ModelHost::plan(model->config(), layout, options);
    check_memory(plan.memory, layout, machine);
  });
  Watchdog watchdog(request.session, static_cast<double>(deck.run.collective_timeout_s));
  ParallelRuntime runtime =
      make_runtime(world, layout, model->config(), machine, options.determinism, &watchdog);
  ModelHost host(model->config(), runtime, options, plan.arenas);
  load_weights(*model, world, host);

  std::optional<AtomicFile> output;
  agree_after(world, [&] {
    if (world.rank() == 0) output.emplace(deck.score.output);
  });
  const Share share(documents, groups, layout.grid, options.batch);
  // Enough micro-batches to keep a pipeline's stages busy.
  const std::int64_t a_pass = 4 * layout.grid.sizes().pipeline;
  const auto groups_of_a_pass = static_cast<std::size_t>(a_pass * layout.grid.sizes().data);
  for (std::size_t first = 0; first < groups.size(); first += groups_of_a_pass) {
    const StepBatch batch = share.batch(first, a_pass);
    std::vector<std::string> lines(speaks(layout.grid) ? static_cast<std::size_t>(batch.micro_batches) : 0);
    host.log_probabilities(batch, [&](std::int64_t i, std::span<const float> values) {
      if (!speaks(layout.grid)) return;
      std::size_t at = 0;
      for (const ScoredDocument& scored : share.documents_of(share.index(first, i))) {
        append_line(lines[static_cast<std::size_t>(i)], scored,
                    values.subspan(at, scored.document.tokens.size()));
        at += scored.document.tokens.size();
      }
    });
    const std::string text = in_order(world, lines);
    agree_after(world, [&] {
      if (world.rank() == 0) output->write(text);
    });
  }
  agree_after(world, [&] {
    if (world.rank() == 0) output->publish();
  });
  if (world.rank() == 0) log_info("{}: {} documents scored", deck.score.output, documents.size());
}

}  // namespace verne
