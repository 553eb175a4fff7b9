#pragma once
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "verne/tensor/meta_trace.hpp"

namespace verne::testing {

/// Holds operations to their `access()`: what they list as written changes and nothing else does, and what
/// they do not list as read does not matter.
class AccessCheck {
 public:
  explicit AccessCheck(Queue& queue) : queue_(queue) {}

  /// Memory that operations may touch, gaps and guards included.
  void add(const Tensor& memory) { memory_.push_back(memory); }

  /// Launches an operation three times on the same input: with all that it does not list as read filled with
  /// zeros, then with 0xff (NaN), then as it is, which is the result that stays.
  void launch(const std::string& operation, const Access& access, const std::function<void()>& launch_it) {
    const Mask read = mask(operation, access.reads), written = mask(operation, access.writes);
    const Image as_it_is = image();
    const std::array<Image, 3> inputs{poisoned(as_it_is, read, std::byte{0}),
                                      poisoned(as_it_is, read, std::byte{0xff}), as_it_is};
    std::array<Image, 3> outputs;
    for (std::size_t run = 0; run < 3; ++run) {
      store(inputs[run]);
      launch_it();
      outputs[run] = image();
    }
    bool writes_more = false, reads_more = false;
    for (std::size_t i = 0; i < as_it_is.size(); ++i) {
      for (std::size_t run = 0; run < 3; ++run) {
        writes_more |= !written[i] && outputs[run][i] != inputs[run][i];
        reads_more |= written[i] && outputs[run][i] != outputs[2][i];
      }
    }
    EXPECT_FALSE(writes_more) << operation << " writes what it does not list as written";
    EXPECT_FALSE(reads_more) << operation
                             << " reads what it does not list as read, or leaves a part of what it "
                             << "lists as written alone as it was";
    for (std::size_t t = 0; t < access.writes.size(); ++t) {
      // A single element may well come out as it was: dx of a norm over one column, say.
      const Mask here = mask(operation, {access.writes[t]});
      bool& changed = changed_.try_emplace({operation, t}, access.writes[t].count() <= 1).first->second;
      for (std::size_t i = 0; i < as_it_is.size() && !changed; ++i)
        changed = here[i] && outputs[2][i] != as_it_is[i];
    }
  }

  /// Fails where an operation lists a tensor as written that none of its launches changed.
  void expect_all_written() const {
    for (const auto& [output, changed] : changed_)
      EXPECT_TRUE(changed) << output.first << " never changes tensor " << output.second << " of its writes";
  }

 private:
  using Image = std::vector<std::byte>;  ///< of all memory, one piece behind the other
  using Mask = std::vector<char>;        ///< of the same bytes: 1 where they are meant

  Image image() const {
    Image all;
    for (const Tensor& memory : memory_) {
      const std::size_t at = all.size(), bytes = static_cast<std::size_t>(memory.bytes());
      all.resize(at + bytes);
      queue_.download(std::span(all).subspan(at, bytes), memory);
    }
    return all;
  }
  static Image poisoned(Image all, const Mask& kept, std::byte poison) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!kept[i]) all[i] = poison;
    }
    return all;
  }
  void store(const Image& all) {
    std::size_t at = 0;
    for (const Tensor& memory : memory_) {
      const auto bytes = static_cast<std::size_t>(memory.bytes());
      queue_.upload(memory, std::span(all).subspan(at, bytes));
      at += bytes;
    }
  }

  Mask mask(const std::string& operation, const std::vector<Tensor>& tensors) const {
    std::int64_t total = 0;
    for (const Tensor& memory : memory_) total += memory.bytes();
    Mask marked(static_cast<std::size_t>(total));
    for (const Tensor& tensor : tensors) {
      EXPECT_FALSE(tensor.empty()) << operation << " lists a tensor that is not there";
      if (tensor.empty() || tensor.count() == 0) continue;
      std::int64_t at = 0;
      bool found = false;
      for (const Tensor& memory : memory_) {
        if (memory.raw() <= tensor.raw() && tensor.raw() < memory.raw() + memory.bytes()) {
          mark(marked, at + (tensor.raw() - memory.raw()), tensor);
          found = true;
        }
        at += memory.bytes();
      }
      EXPECT_TRUE(found) << operation << " lists a tensor " << tensor.shape().text()
                         << " that nobody gave it";
    }
    return marked;
  }
  static void mark(Mask& marked, std::int64_t begin, const Tensor& tensor) {
    const std::int64_t rows = tensor.rank() == 0 ? 1 : tensor.size(0), bytes = tensor.bytes() / rows;
    const std::int64_t stride = bytes_of(tensor.dtype(), tensor.stride());
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto row = marked.begin() + begin + r * stride;
      std::fill(row, row + bytes, 1);
    }
  }

  Queue& queue_;
  std::vector<Tensor> memory_;
  std::map<std::pair<std::string, std::size_t>, bool> changed_;  ///< by operation and place in its writes
};

}  // namespace verne::testing
