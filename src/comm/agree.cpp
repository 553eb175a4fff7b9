#include "verne/comm/agree.hpp"

#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "verne/base/error.hpp"

namespace verne {
namespace {

/// First letter: what kind of error; the rest: its message. Empty: no failure.
std::string describe(const std::exception_ptr& failure) {
  if (!failure) return "";
  try {
    std::rethrow_exception(failure);
  } catch (const UserError& error) {
    return std::string("U") + error.what();
  } catch (const SystemError& error) {
    return std::string("S") + error.what();
  } catch (const std::bad_alloc&) {
    return "SThis rank has not enough memory";
  } catch (const std::exception& error) {
    return std::string("I") + error.what();
  } catch (...) {
    return "IAn exception of unknown type";
  }
}

[[noreturn]] void raise(char kind, const std::string& message) {
  if (kind == 'U') throw UserError(message);
  if (kind == 'S') throw SystemError(message);
  throw InternalError(message);
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown host";
}

}  // namespace

void agree(const HostGroup& group, const std::exception_ptr& failure, HostGroup::Caller caller) {
  if (group.size() == 1) {
    if (failure) std::rethrow_exception(failure);
    return;
  }
  if (group.sum(std::int64_t{failure ? 1 : 0}, caller) == 0) return;
  const std::vector<std::string> outcomes = group.all_gather_text(describe(failure), caller);
  const std::vector<std::string> hosts = group.all_gather_text(failure ? host_name() : "", caller);
  std::size_t first = 0;
  while (outcomes[first].empty()) ++first;
  std::int64_t others = 0;
  bool all_alike = true;
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    others += rank != first && !outcomes[rank].empty();
    all_alike = all_alike && outcomes[rank] == outcomes[first];
  }
  const std::string message = outcomes[first].substr(1);
  if (all_alike) raise(outcomes[first][0], message);
  raise(outcomes[first][0],
        fmt::format("rank {} ({}): {}{}", first, hosts[first], message,
                    others == 0 ? "" : fmt::format(" ({} more ranks failed too)", others)));
}

void agree_after(const HostGroup& group, const std::function<void()>& work, HostGroup::Caller caller) {
  std::exception_ptr failure;
  try {
    work();
  } catch (...) {
    failure = std::current_exception();
  }
  agree(group, failure, caller);
}

}  // namespace verne
