#pragma once
#include "verne/comm/mpi_session.hpp"
#include "verne/host/options.hpp"

namespace verne {

struct ScoreRequest {
  const Deck& deck;
  const MpiSession& session;
  int threads = 1;  ///< CPU threads of this rank
};

/// The verb `score`: log-probabilities of the records' documents, a JSON line each, in input order: index (of
/// the record, from 0), tokens, logprobs (null for the first), sum_logprob over the counted tokens,
/// counted_tokens. Collective.
void score(const ScoreRequest& request);

}  // namespace verne
