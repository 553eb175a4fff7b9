#include "verne/nn/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "verne/base/error.hpp"

namespace verne {
namespace {

using Json = nlohmann::json;

/// Typed access to one JSON object; null means absent, and messages name the file and the key.
class Fields {
 public:
  /// No real model has an extent near this. With at most kMostLayers layers, all counts of parameters and
  /// bytes fit 64 bits.
  static constexpr std::int64_t kMost = std::int64_t{1} << 24;
  static constexpr std::int64_t kMostLayers = 4096;

  Fields(const Json& object, std::string origin, std::string prefix = "")
      : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

  const Json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  template <class... Args>
  [[noreturn]] void refuse(const char* key, fmt::format_string<Args...> format, Args&&... args) const {
    throw UserError(fmt::format("{}: \"{}{}\": {}", origin_, prefix_, key,
                                fmt::format(format, std::forward<Args>(args)...)));
  }

  std::optional<std::int64_t> integer(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number_integer() ||
        (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX))
      refuse(key, "found {}, expected an integer", value->dump());
    return value->get<std::int64_t>();
  }
  std::optional<std::int64_t> positive(const char* key) const {
    const auto value = integer(key);
    if (value && (*value <= 0 || *value > kMost))
      refuse(key, "found {}, expected a number from 1 to {}", *value, kMost);
    return value;
  }
  std::int64_t required(const char* key) const {
    const auto value = positive(key);
    if (!value) refuse(key, "missing; expected a positive integer");
    return *value;
  }
  /// A token id or a place in a list: 0 or more.
  std::optional<std::int64_t> index(const char* key) const {
    const auto value = integer(key);
    if (value && *value < 0) refuse(key, "found {}, expected 0 or more", *value);
    return value;
  }
  std::optional<double> number(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number()) refuse(key, "found {}, expected a number", value->dump());
    return value->get<double>();
  }
  std::optional<double> positive_number(const char* key) const {
    const auto value = number(key);
    if (value && !(*value > 0 && std::isfinite(*value)))
      refuse(key, "found {}, expected a number above 0", *value);
    return value;
  }
  std::optional<bool> boolean(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_boolean()) refuse(key, "found {}, expected true or false", value->dump());
    return value->get<bool>();
  }
  std::optional<std::string> text(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_string()) refuse(key, "found {}, expected a string", value->dump());
    return value->get<std::string>();
  }
  const std::string& origin() const { return origin_; }

 private:
  const Json& object_;
  std::string origin_, prefix_;
};

struct FamilyFacts {
  Family family;
  std::string_view model_type, architecture, activation, eps_key;
};
constexpr std::array kFamilies = {
    FamilyFacts{Family::llama, "llama", "LlamaForCausalLM", "silu", "rms_norm_eps"},
    FamilyFacts{Family::qwen3, "qwen3", "Qwen3ForCausalLM", "silu", "rms_norm_eps"},
    FamilyFacts{Family::mistral, "mistral", "MistralForCausalLM", "silu", "rms_norm_eps"},
    FamilyFacts{Family::nemotron, "nemotron", "NemotronForCausalLM", "relu2", "norm_eps"},
};

const FamilyFacts& facts_of(Family family) {
  return *std::find_if(kFamilies.begin(), kFamilies.end(),
                       [&](const auto& facts) { return facts.family == family; });
}

const FamilyFacts& find_family(const Fields& fields) {
  std::string known;
  for (const auto& facts : kFamilies)
    known += fmt::format("{}{}", known.empty() ? "" : ", ", facts.model_type);
  const auto model_type = fields.text("model_type");
  if (!model_type) fields.refuse("model_type", "missing; expected one of {}", known);
  const auto facts = std::find_if(kFamilies.begin(), kFamilies.end(),
                                  [&](const auto& f) { return f.model_type == *model_type; });
  if (facts == kFamilies.end())
    fields.refuse("model_type", "'{}' is not supported; known are {}", *model_type, known);
  const Json* architectures = fields.find("architectures");
  if (!architectures || !architectures->is_array() || architectures->empty() ||
      !architectures->front().is_string())
    fields.refuse("architectures", "found {}, expected [\"{}\"]",
                  architectures ? architectures->dump() : "nothing", facts->architecture);
  const auto architecture = architectures->front().get<std::string>();
  if (architecture != facts->architecture)
    fields.refuse("architectures", "'{}' does not go with model_type '{}'; expected '{}'", architecture,
                  *model_type, facts->architecture);
  return *facts;
}

/// Fields that change the mathematics of a decoder and that no supported family has.
void refuse_unsupported(const Fields& fields) {
  for (const char* key : {"attention_dropout", "residual_dropout", "resid_pdrop", "embd_pdrop",
                          "hidden_dropout", "hidden_dropout_prob", "attn_pdrop", "mlp_dropout"})
    if (const auto value = fields.number(key); value && *value != 0)
      fields.refuse(key, "dropout {} is not supported; set it to 0", *value);
  for (const char* key :
       {"attention_bias", "mlp_bias", "qkv_bias", "use_qkv_bias", "use_bias", "lm_head_bias"})
    if (const auto value = fields.boolean(key); value && *value)
      fields.refuse(key, "biases of linear layers are not supported");
  for (const char* key : {"quantization_config", "num_local_experts", "num_experts", "n_routed_experts",
                          "final_logit_softcapping", "attn_logit_softcapping", "query_pre_attn_scalar",
                          "logits_scaling", "logit_scale", "embedding_multiplier", "residual_multiplier",
                          "attention_multiplier", "attention_chunk_size", "clip_qkv", "no_rope_layers",
                          "block_configs", "mamba_expand", "kv_lora_rank"})
    if (fields.find(key)) fields.refuse(key, "changes the model's mathematics and is not supported");
  if (const auto ranks = fields.integer("pretraining_tp"); ranks && *ranks != 1)
    fields.refuse("pretraining_tp", "found {}, only 1 is supported", *ranks);
}

void read_rope_scaling(const Fields& rope, const ModelConfig& config, RopeConfig& out) {
  std::optional<std::string> type = rope.text("rope_type");
  if (!type) type = rope.text("type");
  const std::string kind = type.value_or("default");
  const auto factor = [&] {
    const auto value = rope.positive_number("factor");
    if (!value) rope.refuse("factor", "missing; rope type '{}' needs it", kind);
    return *value;
  };
  if (kind == "default") return;
  if (kind == "linear") {
    out.scaling = RopeConfig::Scaling::linear;
    out.factor = factor();
  } else if (kind == "llama3") {
    out.scaling = RopeConfig::Scaling::llama3;
    out.factor = factor();
    const auto low = rope.positive_number("low_freq_factor"), high = rope.positive_number("high_freq_factor");
    if (!low) rope.refuse("low_freq_factor", "missing; rope type 'llama3' needs it");
    if (!high) rope.refuse("high_freq_factor", "missing; rope type 'llama3' needs it");
    if (*high <= *low)
      rope.refuse("high_freq_factor", "found {}, expected more than low_freq_factor {}", *high, *low);
    out.low_freq_factor = *low;
    out.high_freq_factor = *high;
    out.original_max_position_embeddings =
        rope.positive("original_max_position_embeddings").value_or(config.max_positions);
  } else {
    rope.refuse(rope.find("rope_type") ? "rope_type" : "type",
                "'{}' is not supported; known are default, linear, llama3", kind);
  }
}

void read_rope(const Fields& fields, const Json& root, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = fields.positive_number("rope_theta").value_or(1e4);
  std::optional<double> partial;
  for (const char* key : {"partial_rotary_factor", "rope_percentage", "rope_percent", "rotary_pct"})
    if (!partial) partial = fields.positive_number(key);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* object = fields.find(key);
    if (!object) continue;
    if (!object->is_object()) fields.refuse(key, "found {}, expected an object", object->dump());
    const Fields nested(root.at(key), fields.origin(), std::string(key) + ".");
    for (const auto& [name, value] : object->items())
      if (value.is_object())
        nested.refuse(name.c_str(), "rotary embeddings by kind of layer are not supported");
    if (const auto theta = nested.positive_number("rope_theta")) rope.theta = *theta;
    if (const auto factor = nested.positive_number("partial_rotary_factor")) partial = factor;
    read_rope_scaling(nested, config, rope);
  }
  const double share = partial.value_or(config.family == Family::nemotron ? 0.5 : 1.0);
  if (share > 1) fields.refuse("partial_rotary_factor", "found {}, expected at most 1", share);
  if (config.family != Family::nemotron && share != 1)
    fields.refuse("partial_rotary_factor", "found {}; model_type '{}' rotates whole heads", share,
                  name(config.family));
  rope.rotary_dim = static_cast<std::int64_t>(static_cast<double>(config.head_dim) * share);
  if (rope.rotary_dim < 2 || rope.rotary_dim % 2 != 0)
    fields.refuse("partial_rotary_factor", "{} of {} components rotate, expected an even number",
                  rope.rotary_dim, config.head_dim);
}

/// transformers: mistral has one window for all layers; qwen3 from max_window_layers on, if
/// use_sliding_window; `layer_types`, where written, says it layer by layer.
void read_windows(const Fields& fields, ModelConfig& config) {
  config.windows.assign(static_cast<std::size_t>(config.layers), 0);
  const auto window = fields.positive("sliding_window");
  const bool wanted =
      config.family == Family::mistral ||
      (config.family == Family::qwen3 && fields.boolean("use_sliding_window").value_or(false));
  const Json* types = fields.find("layer_types");
  if (types && (!types->is_array() || std::ssize(*types) != config.layers))
    fields.refuse("layer_types", "expected a list of {} entries, one a layer", config.layers);
  const std::int64_t first =
      config.family == Family::qwen3 ? fields.index("max_window_layers").value_or(28) : 0;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    bool slides = wanted && window && layer >= first;
    if (types) {
      const Json& type = (*types)[static_cast<std::size_t>(layer)];
      if (type != "full_attention" && type != "sliding_attention")
        fields.refuse("layer_types", "entry {} is {}, expected \"full_attention\" or \"sliding_attention\"",
                      layer, type.dump());
      slides = type == "sliding_attention";
      if (slides && !(window && wanted))
        fields.refuse("layer_types", "entry {} is \"sliding_attention\" but no sliding window is in force",
                      layer);
    }
    if (slides) config.windows[static_cast<std::size_t>(layer)] = *window;
  }
}

void read_special_tokens(const Fields& fields, ModelConfig& config) {
  config.bos_token_id = fields.find("bos_token_id") && fields.find("bos_token_id")->is_array()
                            ? std::nullopt
                            : fields.index("bos_token_id");
  const Json* eos = fields.find("eos_token_id");
  if (!eos) return;
  const auto add = [&](const Json& id) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > INT64_MAX)
      fields.refuse("eos_token_id", "found {}, expected an id or a list of ids", eos->dump());
    config.eos_token_ids.push_back(id.get<std::int64_t>());
  };
  if (eos->is_array())
    std::for_each(eos->begin(), eos->end(), add);
  else
    add(*eos);
}

Json parse_object(std::string_view text, const std::string& origin) {
  Json root;
  try {
    root = Json::parse(text, [](int depth, Json::parse_event_t, Json&) {
      if (depth > 64) throw UserError("nested deeper than 64 levels");
      return true;
    });
  } catch (const Json::parse_error& error) {
    throw_user_error("{}: not valid JSON at byte {}", origin, error.byte);
  } catch (const Json::exception& error) {  // a number that no double holds
    throw_user_error("{}: not valid JSON: {}", origin, error.what());
  } catch (const UserError& error) {
    throw_user_error("{}: {}", origin, error.what());
  }
  require_user(root.is_object(), "{}: found {}, expected a JSON object", origin, root.type_name());
  return root;
}

}  // namespace

std::string_view name(Family family) {
  return facts_of(family).model_type;
}

ModelConfig parse_model_config(std::string_view json_text, const std::string& origin) {
  const Json root = parse_object(json_text, origin);
  const Fields fields(root, origin);
  const FamilyFacts& facts = find_family(fields);
  ModelConfig config;
  config.family = facts.family;
  config.vocab_size = fields.required("vocab_size");
  config.hidden_size = fields.required("hidden_size");
  config.intermediate_size = fields.required("intermediate_size");
  config.layers = fields.required("num_hidden_layers");
  if (config.layers > Fields::kMostLayers)
    fields.refuse("num_hidden_layers", "found {}, expected at most {}", config.layers, Fields::kMostLayers);
  config.heads = fields.required("num_attention_heads");
  config.kv_heads = fields.positive("num_key_value_heads").value_or(config.heads);
  if (config.heads % config.kv_heads != 0)
    fields.refuse("num_key_value_heads", "{} does not divide num_attention_heads {}", config.kv_heads,
                  config.heads);
  if (const auto head_dim = fields.positive("head_dim")) {
    config.head_dim = *head_dim;
  } else {
    if (config.hidden_size % config.heads != 0)
      fields.refuse("num_attention_heads", "{} does not divide hidden_size {} and no head_dim is given",
                    config.heads, config.hidden_size);
    config.head_dim = config.hidden_size / config.heads;
  }
  if (config.heads * config.head_dim > Fields::kMost)
    fields.refuse("head_dim", "{} heads of {} components are more than {} in all", config.heads,
                  config.head_dim, Fields::kMost);
  config.max_positions = fields.positive("max_position_embeddings").value_or(2048);
  const std::string activation = fields.text("hidden_act").value_or(std::string(facts.activation));
  if (activation != facts.activation)
    fields.refuse("hidden_act", "'{}' is not supported for model_type '{}'; expected '{}'", activation,
                  facts.model_type, facts.activation);
  config.norm = facts.family == Family::nemotron ? NormKind::layer_norm_1p : NormKind::rms;
  config.mlp = facts.family == Family::nemotron ? MlpKind::squared_relu : MlpKind::swiglu;
  config.qk_norm = facts.family == Family::qwen3;
  const std::string eps_key(facts.eps_key);
  config.norm_eps =
      fields.positive_number(eps_key.c_str()).value_or(facts.family == Family::nemotron ? 1e-5 : 1e-6);
  config.tied = fields.boolean("tie_word_embeddings").value_or(false);
  config.initializer_range = fields.positive_number("initializer_range").value_or(0.02);
  refuse_unsupported(fields);
  read_rope(fields, root, config);
  read_windows(fields, config);
  read_special_tokens(fields, config);
  if (auto dtype = fields.text("dtype"))
    config.stored_dtype = *dtype;
  else if (auto torch_dtype = fields.text("torch_dtype"))
    config.stored_dtype = *torch_dtype;
  return config;
}

}  // namespace verne
