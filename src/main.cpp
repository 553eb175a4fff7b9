#include "verne/app/program.hpp"

int main(int argc, char** argv) {
  return static_cast<int>(verne::run_program({argv, argv + argc}));
}
