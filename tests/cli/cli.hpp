#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "testing.hpp"

namespace verne::testing {

/// How a command ended and what it said.
struct CommandResult {
  int exit_code = -1;  ///< 124: it did not end within a minute
  std::string output, errors;
};

/// Runs a shell command in `directory`; ends it after `limit_s`.
CommandResult run_shell(const std::filesystem::path& directory, const std::string& command, int limit_s = 60);
/// `verne` and its arguments; under mpirun where `ranks` > 1.
std::string verne_command(int ranks, const std::string& arguments);
CommandResult verne(const std::filesystem::path& directory, int ranks, const std::string& arguments);

/// The path of the program, and of mpirun.
std::string verne_program();
std::string mpirun();

/// One row of metrics.csv by column name; unless all are wanted, times, speeds and memory, which differ from
/// run to run, are left out.
using MetricsRows = std::vector<std::map<std::string, std::string>>;
enum class Columns { reproducible, all };
MetricsRows read_metrics(const std::filesystem::path& run, Columns wanted = Columns::reproducible);

/// A column of all rows.
std::vector<std::string> column(const MetricsRows& rows, const std::string& name);
/// Losses and gradient norms within 1e-5, relative, at every step.
void expect_curves_close(const MetricsRows& rows, const MetricsRows& reference);

/// Every file below `directory` with its bytes; links as "-> target".
std::map<std::string, std::string> snapshot(const std::filesystem::path& directory);

/// The JSON header and the data of a safetensors file.
struct RawSafetensors {
  nlohmann::ordered_json header;
  std::string data;
};
RawSafetensors read_safetensors(const std::filesystem::path& file);
void write_safetensors(const std::filesystem::path& file, const RawSafetensors& content);

/// Writes into `directory`: config.json (Qwen3, hidden 32, 2 layers, one key of no meaning), tokenizer/ (the
/// golden byte-level BPE), train.jsonl and validation.jsonl (sums in words) and deck.ini, which trains 8
/// steps in float32.
void write_small_case(const std::filesystem::path& directory);
/// `records` questions and answers, one a line.
std::string small_records(int first, int records);

/// A Hugging Face folder that the program itself made from random weights, once for all tests.
const std::filesystem::path& small_model();
void copy_folder(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace verne::testing
