#include "verne/comm/communicator.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "verne/base/error.hpp"

namespace verne {

Pending& Pending::operator=(Pending&& other) {
  if (this == &other) return *this;
  require(!live_, "a pending {} is replaced before it was waited for", operation_);
  done_ = std::move(other.done_);
  operation_ = other.operation_;
  live_ = std::exchange(other.live_, false);
  return *this;
}

Pending::~Pending() {
  if (!live_ || std::uncaught_exceptions() > 0) return;
  fmt::print(stderr, "internal error: a pending {} was destroyed before it was waited for\n", operation_);
  std::abort();
}

void Pending::wait(Queue& consumer) {
  live_ = false;
  consumer.wait(done_);
}

void Pending::wait_on_host() {
  live_ = false;
  done_.wait_on_host();
}

}  // namespace verne
