#include "verne/nn/config.hpp"

#include <algorithm>
#include <array>

#include "config_fields.hpp"
#include "rope_config.hpp"

namespace verne {
namespace {

/// Which linear layers of a family have biases.
enum class Biases {
  never,   ///< transformers has no field for them
  by_key,  ///< where the config says so
  always
};
struct FamilyFacts {
  Family family;
  std::string_view model_type, architecture, activation, eps_key;
  Biases qkv, o, mlp;
};
using enum Biases;
constexpr std::array kFamilies = {
    FamilyFacts{Family::llama, "llama", "LlamaForCausalLM", "silu", "rms_norm_eps", by_key, by_key, by_key},
    FamilyFacts{Family::qwen2, "qwen2", "Qwen2ForCausalLM", "silu", "rms_norm_eps", always, never, never},
    FamilyFacts{Family::qwen3, "qwen3", "Qwen3ForCausalLM", "silu", "rms_norm_eps", by_key, by_key, never},
    FamilyFacts{Family::mistral, "mistral", "MistralForCausalLM", "silu", "rms_norm_eps", never, never,
                never},
    FamilyFacts{Family::nemotron, "nemotron", "NemotronForCausalLM", "relu2", "norm_eps", by_key, by_key,
                by_key},
};

/// Spellings of old configs that mean the same.
std::string_view modern(std::string_view spelling) {
  if (spelling == "LLaMAForCausalLM") return "LlamaForCausalLM";
  if (spelling == "swish") return "silu";
  return spelling;
}

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
                  architectures ? Fields::shown(*architectures) : "nothing", facts->architecture);
  const auto architecture = architectures->front().get<std::string>();
  if (modern(architecture) != facts->architecture)
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
  for (const char* key : {"qkv_bias", "use_qkv_bias", "use_bias", "lm_head_bias"})
    if (fields.boolean(key).value_or(false))
      fields.refuse(key, "these biases are not supported; known are attention_bias and mlp_bias");
  for (const char* key : {"quantization_config", "num_local_experts", "num_experts", "n_routed_experts",
                          "final_logit_softcapping", "attn_logit_softcapping", "query_pre_attn_scalar",
                          "logits_scaling", "logit_scale", "embedding_multiplier", "residual_multiplier",
                          "attention_multiplier", "attention_chunk_size", "clip_qkv", "no_rope_layers",
                          "block_configs", "mamba_expand", "kv_lora_rank"})
    if (fields.find(key)) fields.refuse(key, "changes the model's mathematics and is not supported");
  fields.positive("pretraining_tp");  // splits the same products; transformers no longer reads it
}

void read_biases(const Fields& fields, const FamilyFacts& facts, ModelConfig& config) {
  const auto wanted = [&](const char* key, Biases where) {
    const bool value = fields.boolean(key).value_or(false);
    if (value && where != by_key)
      fields.refuse(key, "model_type '{}' has no such biases in transformers; expected false",
                    facts.model_type);
    return value || where == always;
  };
  config.qkv_bias = wanted("attention_bias", facts.qkv);
  config.o_bias = wanted("attention_bias", facts.o);
  config.mlp_bias = wanted("mlp_bias", facts.mlp);
}

/// transformers: mistral has one window for all layers; qwen2 and qwen3 from max_window_layers on, if
/// use_sliding_window; `layer_types`, where written, says it layer by layer.
void read_windows(const Fields& fields, ModelConfig& config) {
  config.windows.assign(static_cast<std::size_t>(config.layers), 0);
  const auto window = fields.positive("sliding_window");
  const bool qwen = config.family == Family::qwen2 || config.family == Family::qwen3;
  const bool wanted =
      config.family == Family::mistral || (qwen && fields.boolean("use_sliding_window").value_or(false));
  const Json* types = fields.find("layer_types");
  if (types && (!types->is_array() || std::ssize(*types) != config.layers))
    fields.refuse("layer_types", "expected a list of {} entries, one a layer", config.layers);
  const std::int64_t first = qwen ? fields.index("max_window_layers").value_or(28) : 0;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    bool slides = wanted && window && layer >= first;
    if (types) {
      const Json& type = (*types)[static_cast<std::size_t>(layer)];
      if (type != "full_attention" && type != "sliding_attention")
        fields.refuse("layer_types", "entry {} is {}, expected \"full_attention\" or \"sliding_attention\"",
                      layer, Fields::shown(type));
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
      fields.refuse("eos_token_id", "found {}, expected an id or a list of ids", Fields::shown(*eos));
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
  if (modern(activation) != facts.activation)
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
  read_biases(fields, facts, config);
  config.rope = read_rope(fields, config);
  read_windows(fields, config);
  read_special_tokens(fields, config);
  if (auto dtype = fields.text("dtype"))
    config.stored_dtype = *dtype;
  else if (auto torch_dtype = fields.text("torch_dtype"))
    config.stored_dtype = *torch_dtype;
  return config;
}

}  // namespace verne
