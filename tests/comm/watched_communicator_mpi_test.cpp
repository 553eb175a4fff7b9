#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <stdexcept>
#include <thread>

#include "verne/base/error.hpp"
#include "verne/comm/mpi_communicator.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/comm/watchdog.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

// Calls that an error ended are over; were they not, the watchdog would end this program.
TEST(WatchedCommunicator, WhatAnErrorEndedDoesNotHang) {
  const MpiSession session;
  Watchdog watchdog(session, 1.0);
  const HostGroup alone(MPI_COMM_SELF);
  CpuQueue queue;
  const auto communicator =
      watchdog.watch(std::make_unique<MpiCommunicator>("alone", alone), alone, ExchangeEnd::where_waited_for);
  const Buffer buffer(queue, DType::f32, {4, 3}, MemoryKind::scratch);
  const Tensor strided = buffer.tensor().columns(0, 2);
  const Communicator::Message self{buffer.tensor(), 0};
  EXPECT_THROW(communicator->all_reduce(queue, strided, Reduce::sum).wait(queue), InternalError);
  EXPECT_THROW(communicator->exchange(queue, {}, std::span(&self, 1)).wait(queue), InternalError);
  EXPECT_THROW(
      {
        const Pending dropped = communicator->exchange(queue, {}, {});
        throw std::runtime_error("something else");
      },
      std::runtime_error);
  communicator->exchange(queue, {}, {}).wait(queue);
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));
}

}  // namespace
}  // namespace verne
