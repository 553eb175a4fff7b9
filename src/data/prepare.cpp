#include "verne/data/prepare.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ostream>
#include <system_error>
#include <utility>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/base/log.hpp"
#include "verne/comm/agree.hpp"
#include "verne/data/certificate.hpp"
#include "verne/data/documents.hpp"
#include "verne/io/file.hpp"
#include "verne/io/shard.hpp"

namespace verne {
namespace {

constexpr std::int64_t kPrepareVersion = 1;  // changes where the same inputs and settings give other shards
constexpr const char* kFingerprint = "prepare_fingerprint";

struct TextSettings {
  std::optional<Tokenizer> tokenizer;
  RenderOptions render;
};

/// Of the config.json beside the tokenizer: what the caller left open. null means absent; a list of EOS ids:
/// the first.
void read_model_config(const std::filesystem::path& folder, std::string& model_type,
                       std::optional<TokenId>& eos_id) {
  std::error_code ignored;
  const std::filesystem::path file = folder / "config.json";
  if (!std::filesystem::exists(file, ignored)) return;
  const Json config = read_json_file(file);
  require_user(config.is_object(), "{}: expected a JSON object", file.string());
  if (model_type.empty() && config.contains("model_type") && config["model_type"].is_string()) {
    model_type = config["model_type"].get<std::string>();
  }
  if (eos_id || !config.contains("eos_token_id")) return;
  Json eos = config["eos_token_id"];
  if (eos.is_array() && !eos.empty()) eos = Json(eos.front());
  if (eos.is_null()) return;
  require_user(eos.is_number_unsigned() && eos.get<std::uint64_t>() < (std::uint64_t{1} << 32),
               "{}: eos_token_id is {}, expected a token id", file.string(), eos.dump());
  eos_id = static_cast<TokenId>(eos.get<std::uint64_t>());
}

TextSettings load_text_settings(const PrepareSettings& settings) {
  TextSettings text;
  std::string model_type = settings.model_type;
  text.render.train_on = settings.train_on;
  text.render.model_eos_id = settings.model_eos_id;
  if (!settings.tokenizer.empty()) {
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(settings.tokenizer, ignored);
    read_model_config(folder ? settings.tokenizer : settings.tokenizer.parent_path(), model_type,
                      text.render.model_eos_id);
    text.tokenizer = Tokenizer::load(settings.tokenizer);
  } else {
    text.tokenizer = settings.loaded_tokenizer;
  }
  if (!settings.special_tokens.empty()) {
    require_user(text.tokenizer.has_value(), "prepare.special_tokens needs prepare.tokenizer");
    text.tokenizer = text.tokenizer->with_added_tokens(settings.special_tokens);
  }
  text.render.chat_template = resolve_template(settings.template_name, model_type);
  return text;
}

Json settings_json(const PrepareSettings& settings, const TextSettings& text) {
  Json result = Json::object();
  result["template"] = template_name(text.render.chat_template);
  result["train_on"] = settings.train_on == TrainOn::all ? "all" : "last";
  result["special_tokens"] = settings.special_tokens;
  if (text.render.model_eos_id) result["model_eos_id"] = *text.render.model_eos_id;
  if (settings.vocab_size) result["vocab_size"] = *settings.vocab_size;
  result["split"] = settings.split;
  result["split_key"] = settings.split_key;
  result["seed"] = settings.seed;
  result["input_key"] = settings.input_key;
  result["output_key"] = settings.output_key;
  result["limit"] = settings.limit;
  result["tokenizer_hash"] = text.tokenizer ? text.tokenizer->hash() : "";
  return result;
}

Json inputs_json(const InputFiles& inputs, const std::vector<std::string>& hashes) {
  Json result = Json::array();
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    const InputFiles::Source& source = inputs.sources()[i];
    result.push_back({{"file", source.file.path().string()},
                      {"bytes", source.file.size()},
                      {"sha256", hashes[i]},
                      {"part", source.part ? part_name(*source.part) : "split"}});
  }
  return result;
}

/// SHA-256 of all that decides what is in the shards; the names of the inputs do not.
std::string fingerprint_of(const Json& settings, const Json& inputs, const TextSettings& text) {
  Json facts = {{"version", kPrepareVersion}, {"settings", settings}, {"inputs", inputs}};
  for (Json& input : facts["inputs"]) input.erase("file");
  if (text.tokenizer) facts["tokenizer_config_sha256"] = sha256_hex(text.tokenizer->config_json());
  return sha256_hex(facts.dump());
}

/// "1:05:09", "0:07"
std::string clock_text(double seconds) {
  const auto total = static_cast<std::int64_t>(seconds + 0.5);
  if (total >= 3600) return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
  return fmt::format("{}:{:02}", total / 60, total % 60);
}

/// Reports the share of a rank's bytes that is done, every few seconds; one rank's share stands for all.
class ProgressReport {
 public:
  ProgressReport(std::int64_t bytes, int rank, int ranks) : bytes_(bytes), rank_(rank), ranks_(ranks) {}
  void advance(std::int64_t bytes) {
    done_ += bytes;
    if (rank_ != 0 || (++calls_ & 1023) != 0) return;
    const auto now = Clock::now();
    if (now - last_ < std::chrono::seconds(5)) return;
    last_ = now;
    const double elapsed_s = std::chrono::duration<double>(now - start_).count();
    const double done = static_cast<double>(done_),
                 share = done / static_cast<double>(std::max(bytes_, done_));
    log_info("prepare: {:.0f} %, {:.1f} MB/s on {} ranks, {} left", 100 * share,
             done * ranks_ / elapsed_s / 1e6, ranks_, clock_text(elapsed_s / share - elapsed_s));
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::int64_t bytes_, done_ = 0, calls_ = 0;
  int rank_, ranks_;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};

/// Records of a stream that count, with prepare.limit.
std::int64_t limited(std::int64_t records, std::int64_t limit) {
  return limit > 0 ? std::min(records, limit) : records;
}

/// The times of all records that are split, by index. Collective.
std::vector<long double> gather_times(const PrepareSettings& settings, const InputFiles& inputs,
                                      const StreamCounts& counts, const HostGroup& group) {
  const std::size_t stream = stream_of(std::nullopt);
  const std::int64_t end = limited(counts.total[stream], settings.limit);
  std::vector<long double> mine;
  std::array<std::int64_t, 2> kinds{};  // records with a number, with a date
  agree_after(group, [&] {
    DocumentMaker maker(std::nullopt, {}, {});
    inputs.for_each_line([&](const InputFiles::Source& source, const JsonlLine& line) {
      if (source.part) return true;
      if (counts.first[stream] + static_cast<std::int64_t>(mine.size()) >= end) return false;
      const RecordParser::Time time = maker.time(source.file, line, settings.split_key);
      ++kinds[time.kind == RecordParser::Time::Kind::number ? 0 : 1];
      mine.push_back(time.value);
      return true;
    });
  });
  group.sum(std::span(kinds));
  require_user(kinds[0] == 0 || kinds[1] == 0,
               "prepare.split_key={}: {} records have a number and {} a date there; expected one kind",
               settings.split_key, kinds[0], kinds[1]);
  const std::string bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(long double));
  std::vector<long double> all;
  for (const std::string& part : group.all_gather_text(bytes)) {
    const std::size_t at = all.size();
    all.resize(at + part.size() / sizeof(long double));
    if (!part.empty()) std::memcpy(all.data() + at, part.data(), part.size());
  }
  return all;
}

Splitter make_splitter(const PrepareSettings& settings, const InputFiles& inputs, const StreamCounts& counts,
                       const HostGroup& group) {
  const std::int64_t records = counts.total[stream_of(std::nullopt)];
  if (settings.split_key.empty()) return {limited(records, settings.limit), settings.split, settings.seed};
  if (group.rank() == 0 && records == 0)
    log_warning("prepare.split_key does nothing: every input names its part");
  return {gather_times(settings, inputs, counts, group), settings.split};
}

std::filesystem::path shard_path(const PrepareSettings& settings, Part part) {
  return settings.output / fmt::format("{}.h5", part_name(part));
}

/// The shards that stand in the output folder, where certificate and shards bear this fingerprint.
/// Collective.
bool stands_already(const PrepareSettings& settings, const std::string& fingerprint, const HostGroup& group) {
  std::int64_t good = 0;
  if (group.rank() == 0) {
    const std::optional<Json> certificate = read_certificate(settings.output);
    good = certificate && certificate->is_object() && certificate->value("fingerprint", "") == fingerprint
               ? 1
               : 0;
    for (const Part part : kParts) {
      if (good == 0) break;
      try {
        const ShardReader shard(shard_path(settings, part));
        const auto& attributes = shard.info().attributes;
        const auto found = attributes.find(kFingerprint);
        good = found != attributes.end() && found->second == fingerprint ? 1 : 0;
      } catch (const Error&) {
        good = 0;  // torn or not there: made anew
      }
    }
  }
  return group.max(good) == 1;
}

/// Tokenizes this rank's records into the writers. Local.
PrepareCounts write_documents(const PrepareSettings& settings, const TextSettings& text,
                              const InputFiles& inputs, const StreamCounts& streams, const Splitter& splitter,
                              const HostGroup& group, std::array<ShardWriter, 3>& writers) {
  DocumentMaker maker(text.tokenizer, text.render,
                      {settings.input_key, settings.output_key, settings.vocab_size});
  ProgressReport progress(inputs.bytes(), group.rank(), group.size());
  PrepareCounts counts;
  std::array<std::int64_t, kStreams> next = streams.first;
  inputs.for_each_line([&](const InputFiles::Source& source, const JsonlLine& line) {
    const std::size_t stream = stream_of(source.part);
    const std::int64_t index = next[stream]++;
    if (settings.limit > 0 && index >= settings.limit) return true;
    const Part part = source.part ? *source.part : splitter.part(index);
    const LineDocuments made = maker.make(source.file, line);
    std::int64_t written = 0;
    for (const Document& document : made.documents) {
      if (document.tokens.empty()) continue;
      writers[static_cast<std::size_t>(part)].append(document.tokens, document.loss_mask, made.metadata);
      counts.add_document(part, document);
      ++written;
    }
    if (written > 0) {
      counts.add_record(part, made.form, made.control_spellings);
    } else {
      counts.add_empty_record();
    }
    progress.advance(static_cast<std::int64_t>(line.text.size()) + 1);
    return true;
  });
  return counts;
}

/// What a shard says of its template: records of text alone were rendered as by `none`, tokenized ones by
/// none that is known.
std::string_view template_of(const PrepareCounts& counts, ChatTemplate chosen) {
  if (counts.records(RecordForm::templated) > 0) return template_name(chosen);
  if (counts.records(RecordForm::text) > 0) return template_name(ChatTemplate::none);
  return counts.records(RecordForm::tokenized) > 0 ? "" : template_name(chosen);
}

void print_summary(const PreparedData& data, const PrepareCounts& counts, double elapsed_s,
                   std::int64_t bytes, std::ostream& out) {
  for (const Part part : kParts) {
    const PreparedPart& made = data[part];
    out << message_text("{}: {} records, {} documents, {} tokens, {} of them trained\n", made.shard.string(),
                        made.records, made.documents, made.tokens, made.trained_tokens);
  }
  if (counts.empty_records() > 0)
    out << fmt::format("{} records without a token were dropped\n", counts.empty_records());
  out << fmt::format("{:.1f} MB of JSONL in {:.2f} s: {:.1f} MB/s\n", static_cast<double>(bytes) / 1e6,
                     elapsed_s, static_cast<double>(bytes) / 1e6 / std::max(elapsed_s, 1e-9));
}

/// The counts of shards made before, from their certificate.
void read_part_counts(PreparedData& data, const std::filesystem::path& folder) {
  const std::optional<Json> certificate = read_certificate(folder);
  require_user(certificate.has_value(), "{}: the certificate is gone", (folder / kCertificateName).string());
  for (const Part part : kParts) {
    PreparedPart& made = data.parts[static_cast<std::size_t>(part)];
    const Json& counts = certificate->at("parts").at(std::string(part_name(part)));
    made.records = counts.at("records").get<std::int64_t>();
    made.documents = counts.at("documents").get<std::int64_t>();
    made.tokens = counts.at("tokens").get<std::int64_t>();
    made.trained_tokens = counts.at("trained_tokens").get<std::int64_t>();
  }
}

void show_samples(const PrepareSettings& settings, const TextSettings& text, const PreparedData& data,
                  std::ostream& out) {
  for (const Part part : kParts) {
    if (data[part].documents == 0) continue;
    show_documents(ShardReader(data[part].shard), text.tokenizer, settings.show, settings.marking, out);
    return;
  }
}

}  // namespace

PreparedData prepare(const PrepareSettings& settings, const HostGroup& group, std::ostream& out,
                     Reuse reuse) {
  std::optional<InputFiles> inputs;
  TextSettings text;
  agree_after(group, [&] {
    check_split(settings.split);
    require_user(!settings.output.empty(), "no output; give prepare.output, a folder");
    require_user(settings.limit >= 0 && settings.show >= 0,
                 "prepare.limit={} and prepare.show={}: expected 0 or more", settings.limit, settings.show);
    inputs.emplace(settings.inputs, group.rank(), group.size());
    text = load_text_settings(settings);
  });
  const auto start = std::chrono::steady_clock::now();
  PreparedData data;
  data.input_sha256 = hash_sources(*inputs, group);
  for (const InputFiles::Source& source : inputs->sources()) data.input_files.push_back(source.file.path());
  for (const Part part : kParts)
    data.parts[static_cast<std::size_t>(part)].shard = shard_path(settings, part);
  const Json facts = settings_json(settings, text), files = inputs_json(*inputs, data.input_sha256);
  data.fingerprint = fingerprint_of(facts, files, text);

  if (reuse == Reuse::yes && stands_already(settings, data.fingerprint, group)) {
    data.made = PreparedData::Made::before;
    agree_after(group, [&] { read_part_counts(data, settings.output); });
    if (group.rank() == 0)
      out << message_text("{}: the prepared data still fits, taken as it is\n", settings.output.string());
    return data;
  }

  const StreamCounts streams = count_records(*inputs, group);
  const Splitter splitter = make_splitter(settings, *inputs, streams, group);
  ShardInfo info;
  info.attributes[kFingerprint] = data.fingerprint;
  if (text.tokenizer) {
    info.tokenizer_hash = text.tokenizer->hash();
    info.tokenizer_files["tokenizer.json"] = text.tokenizer->json();
    if (!text.tokenizer->config_json().empty())
      info.tokenizer_files["tokenizer_config.json"] = text.tokenizer->config_json();
  }
  std::array<ShardWriter, 3> writers{ShardWriter(data[Part::train].shard, group, info),
                                     ShardWriter(data[Part::validation].shard, group, info),
                                     ShardWriter(data[Part::test].shard, group, info)};
  PrepareCounts counts;
  agree_after(group,
              [&] { counts = write_documents(settings, text, *inputs, streams, splitter, group, writers); });
  counts.sum(group);
  // The shards bear the fingerprint too, so a certificate of older ones is not taken for theirs if this ends
  // here.
  for (ShardWriter& writer : writers) {
    writer.set_chat_template(std::string(template_of(counts, text.render.chat_template)));
    writer.finish();
  }
  for (const Part part : kParts) {
    PreparedPart& made = data.parts[static_cast<std::size_t>(part)];
    made.records = counts.records(part);
    made.documents = counts.documents(part);
    made.tokens = counts.tokens(part);
    made.trained_tokens = counts.trained_tokens(part);
  }
  const double elapsed_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    Json certificate = {{"format", "verne prepare certificate"}, {"format_version", kPrepareVersion}};
    certificate["fingerprint"] = data.fingerprint;
    certificate["inputs"] = files;
    certificate["settings"] = facts;
    certificate.update(counts.to_json());
    write_file_atomically(settings.output / kCertificateName, dump_json(certificate));
    print_summary(data, counts, elapsed_s, inputs->total_bytes(), out);
    if (settings.show > 0) show_samples(settings, text, data, out);
  });
  return data;
}

}  // namespace verne
