#include "rope_config.hpp"

#include <cmath>

namespace verne {
namespace {

/// Members of `rope_scaling` or `rope_parameters`, and what they fall back on.
class ScalingReader {
 public:
  ScalingReader(const Fields& rope, const Fields& root, const ModelConfig& config)
      : rope_(rope), root_(root), config_(config) {
    type_key_ = rope.find("rope_type") ? "rope_type" : "type";
    kind_ = rope.text(type_key_).value_or("default");
  }

  void read(RopeConfig& out) const {
    if (kind_ == "default") return;
    if (kind_ == "linear") return read_linear(out);
    if (kind_ == "llama3") return read_llama3(out);
    if (kind_ == "yarn") return read_yarn(out);
    rope_.refuse(type_key_, "'{}' is not supported; known are default, linear, llama3, yarn", kind_);
  }

 private:
  double needed(const char* key) const {
    const auto value = rope_.positive_number(key);
    if (!value) rope_.refuse(key, "missing; rope type '{}' needs it", kind_);
    return *value;
  }

  /// The length before the context was extended. transformers lets a key of this name beside the object win,
  /// and takes max_position_embeddings where there is none.
  std::int64_t original_positions() const {
    constexpr const char* kKey = "original_max_position_embeddings";
    if (const auto beside = root_.positive(kKey)) return *beside;
    return rope_.positive(kKey).value_or(config_.max_positions);
  }

  void read_linear(RopeConfig& out) const {
    out.scaling = RopeConfig::Scaling::linear;
    out.factor = needed("factor");
  }

  void read_llama3(RopeConfig& out) const {
    out.scaling = RopeConfig::Scaling::llama3;
    out.factor = needed("factor");
    out.low_freq_factor = needed("low_freq_factor");
    out.high_freq_factor = needed("high_freq_factor");
    if (out.high_freq_factor <= out.low_freq_factor)
      rope_.refuse("high_freq_factor", "found {}, expected more than low_freq_factor {}",
                   out.high_freq_factor, out.low_freq_factor);
    out.original_max_position_embeddings = original_positions();
  }

  void read_yarn(RopeConfig& out) const {
    out.scaling = RopeConfig::Scaling::yarn;
    out.original_max_position_embeddings = original_positions();
    if (rope_.find("factor"))
      out.factor = needed("factor");
    else if (out.original_max_position_embeddings != config_.max_positions)
      out.factor = static_cast<double>(config_.max_positions) /
                   static_cast<double>(out.original_max_position_embeddings);
    else
      needed("factor");
    out.beta_fast = rope_.positive_number("beta_fast").value_or(32);
    out.beta_slow = rope_.positive_number("beta_slow").value_or(1);
    if (out.beta_fast < out.beta_slow)
      rope_.refuse("beta_fast", "found {}, expected at least beta_slow {}", out.beta_fast, out.beta_slow);
    out.truncate = rope_.boolean("truncate").value_or(true);
    if (out.theta <= 1) rope_.refuse("rope_theta", "found {}, rope type 'yarn' needs more than 1", out.theta);
    const auto mscale = rope_.number("mscale"), all_dim = rope_.number("mscale_all_dim");
    for (const auto& [key, value] : {std::pair{"mscale", mscale}, {"mscale_all_dim", all_dim}})
      if (value && !(*value >= 0)) rope_.refuse(key, "found {}, expected 0 or more", *value);
    const auto attention_scale = [&](double scale) {
      return out.factor <= 1 ? 1.0 : 0.1 * scale * std::log(out.factor) + 1;
    };
    if (const auto given = rope_.positive_number("attention_factor"))
      out.attention_factor = *given;
    else if (mscale.value_or(0) != 0 && all_dim.value_or(0) != 0)
      out.attention_factor = attention_scale(*mscale) / attention_scale(*all_dim);
    else
      out.attention_factor = attention_scale(1);
  }

  const Fields &rope_, &root_;
  const ModelConfig& config_;
  const char* type_key_;
  std::string kind_;
};

}  // namespace

RopeConfig read_rope(const Fields& fields, const ModelConfig& config) {
  RopeConfig rope;
  rope.theta = fields.positive_number("rope_theta").value_or(1e4);
  std::optional<double> partial;
  for (const char* key : {"partial_rotary_factor", "rope_percentage", "rope_percent", "rotary_pct"})
    if (!partial) partial = fields.positive_number(key);
  // Where both are there, transformers takes rope_scaling unless it is empty.
  const bool scaling = fields.find("rope_scaling") && !fields.nested("rope_scaling").json().empty();
  const char* key = scaling ? "rope_scaling" : "rope_parameters";
  if (fields.find(key)) {
    const Fields nested = fields.nested(key);
    for (const auto& [name, value] : nested.json().items())
      if (value.is_object())
        nested.refuse(name.c_str(), "rotary embeddings by kind of layer are not supported");
    if (const auto theta = nested.positive_number("rope_theta")) rope.theta = *theta;
    if (const auto factor = nested.positive_number("partial_rotary_factor")) partial = factor;
    ScalingReader(nested, fields, config).read(rope);
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
  return rope;
}

}  // namespace verne
