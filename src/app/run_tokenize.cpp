#include <cstring>
#include <optional>

#include "verne/app/run_verb.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/file.hpp"
#include "verne/io/jsonl.hpp"
#include "verne/text/tokenize_lines.hpp"

namespace verne {

ExitCode run_tokenize(const VerbRun& run) {
  const TokenizeSection& section = run.deck().tokenize;
  const HostGroup& world = run.session.world();
  std::string lines;
  agree_after(world, [&] {
    const Tokenizer tokenizer = Tokenizer::load(resolve_tokenizer(section.tokenizer));
    const JsonlFile file(section.input);
    const MappedFile content(section.input);
    const ByteRange range = file.split(world.size())[static_cast<std::size_t>(world.rank())];
    const std::string_view text = content.text().substr(static_cast<std::size_t>(range.begin),
                                                        static_cast<std::size_t>(range.end - range.begin));
    if (!text.empty()) lines = tokenize_lines(tokenizer, text, section.input, file.line_number(range.begin));
  });
  // Rank order is the order of the input.
  std::vector<std::vector<std::byte>> to_root(static_cast<std::size_t>(world.size()));
  to_root[0].resize(lines.size());
  std::memcpy(to_root[0].data(), lines.data(), lines.size());
  const auto parts = world.all_to_all(to_root);
  agree_after(world, [&] {
    if (world.rank() != 0) return;
    AtomicFile output(section.output);
    for (const auto& part : parts) output.write({reinterpret_cast<const char*>(part.data()), part.size()});
    output.publish();
  });
  write_used_inputs_beside(run, section.output);
  return ExitCode::done;
}

}  // namespace verne
