#pragma once
#include "config_fields.hpp"
#include "verne/nn/config.hpp"

namespace verne {

/// The rotary embedding of a config.json whose shape and family are already in `config`, in the spelling of
/// transformers 4 (`rope_theta`, `rope_scaling` with `rope_type` or `type`) or 5 (`rope_parameters`).
RopeConfig read_rope(const Fields& fields, const ModelConfig& config);

}  // namespace verne
