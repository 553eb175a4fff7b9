#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <stdexcept>
#include <string>

#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

template <class Expected>
std::string message_of(const HostGroup& group, const std::function<void()>& work) {
  try {
    agree_after(group, work);
  } catch (const Expected& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another kind of error: ") + error.what();
  }
  return "no error";
}

TEST(Agree, NothingHappensWhereNoRankFailed) {
  const HostGroup world(MPI_COMM_WORLD);
  EXPECT_EQ(message_of<Error>(world, [] {}), "no error");
}

TEST(Agree, EveryRankThrowsTheErrorOfTheOneThatFailed) {
  const HostGroup world(MPI_COMM_WORLD);
  const int bad = world.size() - 1;
  const std::string message = message_of<UserError>(world, [&] {
    if (world.rank() == bad) throw_user_error("file {} cannot be read", "x.txt");
  });
  EXPECT_THAT(message, HasSubstr("file x.txt cannot be read"));
  EXPECT_THAT(message, Not(HasSubstr("another kind")));
  if (world.size() > 1) {
    EXPECT_THAT(message, HasSubstr("rank " + std::to_string(bad) + " ("));
  }
}

TEST(Agree, AnErrorOfAllRanksNamesNone) {
  const HostGroup world(MPI_COMM_WORLD);
  EXPECT_EQ(message_of<UserError>(world, [] { throw UserError("no such key"); }), "no such key");
}

TEST(Agree, KeepsTheKindOfTheFirstFailure) {
  const HostGroup world(MPI_COMM_WORLD);
  const std::string message = message_of<SystemError>(world, [&] {
    if (world.rank() == 0) throw SystemError("disk full");
    throw UserError("later");
  });
  EXPECT_THAT(message, HasSubstr("disk full"));
  if (world.size() == 4) {
    EXPECT_THAT(message, HasSubstr("3 more ranks"));
  }
}

}  // namespace
}  // namespace verne
