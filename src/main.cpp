#include <csignal>

#include "verne/app/program.hpp"

int main(int argc, char** argv) {
  // A write beyond `ulimit -f` then fails with EFBIG, which is said as a full disk is, instead of ending the
  // program without a word.
  std::signal(SIGXFSZ, SIG_IGN);
  return static_cast<int>(verne::run_program({argv, argv + argc}));
}
