#include "verne/train/score.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "verne/base/checked.hpp"
#include "verne/comm/agree.hpp"
#include "verne/data/documents.hpp"
#include "verne/data/inputs.hpp"
#include "verne/io/file.hpp"
#include "verne/train/engine.hpp"
#include "verne/train/hardware.hpp"
#include "verne/train/layout.hpp"

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

}  // namespace

void score(const ScoreRequest& request) {
  const Deck& deck = request.deck;
  const HostGroup& world = request.session.world();
  const int gpu = request.session.rank_in_node();
  std::optional<ModelSource> model;
  std::optional<TrainLayout> layout;
  std::vector<ScoredDocument> documents;
  DeviceKind device = DeviceKind::cpu;
  EngineOptions options{.dtype = deck.model.dtype == ModelDType::fp32 ? DType::f32 : DType::bf16,
                        .purpose = Purpose::inference};
  EnginePlan plan;
  agree_after(world, [&] { device = choose_device(deck.run.device); });
  model = ModelSource::open(deck.model, world, [&](const std::string& line) {
    if (world.rank() == 0) log_info("{}", line);
  });
  agree_after(world, [&] {
    layout = make_layout_without_batch(deck, model->config(), world.rank(), world.size());
    documents = read_documents(deck, *model);
  });
  const std::vector<Group> groups = make_groups(documents);
  std::int64_t longest = 1, most_documents = 1;
  for (const Group& group : groups) {
    longest = std::max(longest, group.tokens);
    most_documents = std::max(most_documents, static_cast<std::int64_t>(group.last - group.first));
  }
  const std::int64_t tokens = round_up<std::int64_t>(longest, layout->grid.sizes().tensor);
  options.batch = {.rows = 1,
                   .seq_length = tokens,
                   .table = DocumentTable::packed,
                   .document_capacity = most_documents + 1};
  agree_after(world, [&] {
    plan = Engine::plan(model->config(), layout->grid, layout->sequence, options);
    check_memory(plan, device, gpu);
  });
  Watchdog watchdog(request.session, static_cast<double>(deck.run.collective_timeout_s));
  ParallelRuntime runtime = make_runtime(world, layout->grid, model->config(), layout->sequence, device, gpu,
                                         request.threads, ParallelRuntime::Bits::reproducible, &watchdog);
  Engine engine(model->config(), runtime, options, plan.arenas);
  load_weights(*model, world, engine);

  std::optional<AtomicFile> output;
  agree_after(world, [&] {
    if (world.rank() == 0) output.emplace(deck.score.output);
  });
  const std::size_t data_ranks = static_cast<std::size_t>(layout->grid.sizes().data);
  for (std::size_t round = 0; round < groups.size(); round += data_ranks) {
    const std::size_t own = round + static_cast<std::size_t>(layout->grid.data());
    std::string text;
    if (own < groups.size()) {
      const Group& group = groups[own];
      const std::span<const ScoredDocument> part =
          std::span(documents).subspan(group.first, group.last - group.first);
      const std::vector<float> values = engine.log_probabilities(make_batch(part, options.batch));
      std::size_t at = 0;
      for (const ScoredDocument& scored : part) {
        append_line(text, scored, std::span(values).subspan(at, scored.document.tokens.size()));
        at += scored.document.tokens.size();
      }
    }
    // Tensor ranks hold the same values: the first of each group speaks. World order is data order.
    std::vector<std::vector<std::byte>> to(static_cast<std::size_t>(world.size()));
    if (layout->grid.tensor() == 0) {
      const auto bytes = std::as_bytes(std::span(text));
      to[0].assign(bytes.begin(), bytes.end());
    }
    const auto received = world.all_to_all(to);
    agree_after(world, [&] {
      if (world.rank() != 0) return;
      for (const auto& part : received)
        output->write({reinterpret_cast<const char*>(part.data()), part.size()});
    });
  }
  agree_after(world, [&] {
    if (world.rank() == 0) output->publish();
  });
  if (world.rank() == 0) log_info("{}: {} documents scored", deck.score.output, documents.size());
}

}  // namespace verne
