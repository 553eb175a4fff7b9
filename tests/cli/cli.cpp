#include "cli.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace verne::testing {

namespace fs = std::filesystem;

std::string verne_program() {
  return VERNE_PROGRAM;
}

std::string mpirun() {
  return "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
         "OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_hwloc_base_binding_policy=none "
         "OMPI_MCA_mpi_yield_when_idle=1 " VERNE_MPIEXEC;
}

CommandResult run_shell(const fs::path& directory, const std::string& command, int limit_s) {
  const TemporaryDirectory streams;
  const fs::path out = streams.path() / "out", err = streams.path() / "err",
                 script = streams.path() / "command";
  write_text(script, "export OPENBLAS_NUM_THREADS=1\n" + command + "\n");
  const std::string line = "cd '" + directory.string() + "' && timeout -k 5 " + std::to_string(limit_s) +
                           " sh '" + script.string() + "' >'" + out.string() + "' 2>'" + err.string() +
                           "' </dev/null";
  const int status = std::system(line.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(out), read_text(err)};
}

std::string verne_command(int ranks, const std::string& arguments) {
  const std::string launcher = ranks > 1 ? mpirun() + " -n " + std::to_string(ranks) + " " : "";
  return launcher + verne_program() + " " + arguments;
}

CommandResult verne(const fs::path& directory, int ranks, const std::string& arguments) {
  return run_shell(directory, verne_command(ranks, arguments));
}

MetricsRows read_metrics(const fs::path& run, Columns wanted) {
  std::istringstream text(read_text(run / "metrics.csv"));
  const auto cells = [](const std::string& line) {
    std::vector<std::string> found(1);
    for (const char c : line) {
      if (c == ',')
        found.emplace_back();
      else
        found.back() += c;
    }
    return found;
  };
  std::string line;
  std::getline(text, line);
  const std::vector<std::string> columns = cells(line);
  MetricsRows rows;
  while (std::getline(text, line)) {
    const std::vector<std::string> values = cells(line);
    if (values.size() != columns.size()) throw std::runtime_error("metrics.csv: torn row " + line);
    auto& row = rows.emplace_back();
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::string& name = columns[i];
      if (wanted == Columns::all || (name != "step_time_s" && name != "tokens_per_s" &&
                                     name != "tflops_per_gpu" && name != "mfu" && name != "peak_memory_gb"))
        row[name] = values[i];
    }
  }
  return rows;
}

std::vector<std::string> column(const MetricsRows& rows, const std::string& name) {
  std::vector<std::string> values;
  for (const auto& row : rows) values.push_back(row.at(name));
  return values;
}

void expect_curves_close(const MetricsRows& rows, const MetricsRows& reference) {
  ASSERT_EQ(column(rows, "step"), column(reference, "step"));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const char* name : {"loss", "grad_norm", "val_loss"}) {
      const std::string &own = rows[i].at(name), &other = reference[i].at(name);
      ASSERT_EQ(own.empty(), other.empty()) << name << " in row " << i;
      if (own.empty()) continue;
      const double value = std::stod(other);
      EXPECT_NEAR(std::stod(own), value, 1e-5 * value) << name << " in row " << i;
    }
  }
}

std::map<std::string, std::string> snapshot(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const std::string name = fs::relative(entry.path(), directory).string();
    if (entry.is_symlink())
      files[name] = "-> " + fs::read_symlink(entry.path()).string();
    else if (entry.is_regular_file())
      files[name] = read_text(entry.path());
  }
  return files;
}

RawSafetensors read_safetensors(const fs::path& file) {
  const std::string bytes = read_text(file);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  return {nlohmann::ordered_json::parse(bytes.substr(8, length)), bytes.substr(8 + length)};
}

void write_safetensors(const fs::path& file, const RawSafetensors& content) {
  std::string header = content.header.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  write_text(file, bytes + header + content.data);
}

std::string small_records(int first, int records) {
  static constexpr const char* kWords[] = {"zero", "one", "two",   "three", "four",
                                           "five", "six", "seven", "eight", "nine"};
  std::string text;
  for (int i = first; i < first + records; ++i) {
    const int a = i * 7 % 10, b = i * 3 % 10;
    text += std::string(R"({"question": "What is )") + kWords[a] + " plus " + kWords[b] +
            R"(?", "answer": "It is )" + std::to_string(a + b) + R"(.", "number": )" + std::to_string(i) +
            "}\n";
  }
  return text;
}

void write_small_case(const fs::path& directory) {
  copy_folder(golden_dir() / "tokenizers" / "qwen", directory / "tokenizer");
  fs::remove(directory / "tokenizer" / "golden.jsonl");
  write_text(directory / "config.json", R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
    "vocab_size": 432, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "hidden_act": "silu", "max_position_embeddings": 512,
    "rms_norm_eps": 1e-06, "tie_word_embeddings": true, "rope_theta": 10000.0, "attention_bias": false,
    "attention_dropout": 0.0, "initializer_range": 0.05, "torch_dtype": "float32", "eos_token_id": 422,
    "a_key_of_no_meaning": {"kept": [1, 2.5, null]}})");
  write_text(directory / "train.jsonl", small_records(0, 60));
  write_text(directory / "validation.jsonl", small_records(100, 12));
  write_text(directory / "deck.ini", R"([run]
dir = run
device = cpu
threads = 1
[model]
config = config.json
init = random
dtype = fp32
[data]
train = train.jsonl
validation = validation.jsonl
seq_length = 96
[prepare]
tokenizer = tokenizer
template = qwen3
input_key = question
output_key = answer
[train]
max_steps = 8
micro_batch = 1
global_batch = 4
val_interval = 4
val_batches = 1
[optimizer]
lr = 3e-3
warmup_steps = 2
[checkpoint]
interval = 3
)");
}

const fs::path& small_model() {
  static const TemporaryDirectory directory;
  static const fs::path folder = [] {
    write_small_case(directory.path());
    const CommandResult result =
        verne(directory.path(), 1, "train deck.ini --train.max_steps=2 --train.export=hf");
    if (result.exit_code != 0) throw std::runtime_error("the small model was not made: " + result.errors);
    return directory.path() / "run" / "hf";
  }();
  return folder;
}

void copy_folder(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  fs::copy(
      from, to,
      fs::copy_options::recursive | fs::copy_options::copy_symlinks | fs::copy_options::overwrite_existing);
}

}  // namespace verne::testing
