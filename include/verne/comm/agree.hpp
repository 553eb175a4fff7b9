#pragma once
#include <exception>
#include <functional>

#include "verne/comm/host_group.hpp"

namespace verne {

/// What the ranks of a group make of a step that each did alone: where none failed, nothing; else every rank
/// throws the same error, of the kind of the first failure, naming the ranks that failed (no rank where all
/// failed alike). Collective; every rank calls it, those that failed with their exception, the others with
/// nullptr.
void agree(const HostGroup& group, const std::exception_ptr& failure,
           HostGroup::Caller caller = HostGroup::Caller::current());

/// Runs `work`, which must not be collective, on this rank and agrees on the outcome. Collective.
void agree_after(const HostGroup& group, const std::function<void()>& work,
                 HostGroup::Caller caller = HostGroup::Caller::current());

}  // namespace verne
