#include "verne/train/manifest.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "testing.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/host/environment.hpp"

namespace verne {
namespace {

using testing::write_text;

TEST(Manifest, FingerprintsFilesAndFolders) {
  const testing::TemporaryDirectory directory;
  write_text(directory.path() / "b.txt", "abc");
  write_text(directory.path() / "a" / "c.txt", "");
  const std::string abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  const std::string empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  const auto file = fingerprint(directory.path() / "b.txt");
  EXPECT_EQ(file.sha256, abc);
  EXPECT_EQ(file.bytes, 3);
  const auto folder = fingerprint(directory.path());
  EXPECT_EQ(folder.sha256, sha256_hex(empty + "  a/c.txt\n" + abc + "  b.txt\n"));
  EXPECT_EQ(folder.bytes, 3);
  EXPECT_THROW(fingerprint(directory.path() / "none"), UserError);
}

TEST(Manifest, SaysWhatReproducesARun) {
  Manifest manifest;
  manifest.verb = "train";
  manifest.command_line = {"verne", "train", "a\xff.ini"};
  manifest.layout = {{"ranks", 2}, {"tensor", 2}};
  manifest.seeds = {{"run", 1234}};
  manifest.rank_hosts = {"n1", "n2"};
  manifest.devices = {"cpu", "cpu"};
  manifest.inputs = {{"train.jsonl", 3, "ab"}};
  const auto json = nlohmann::json::parse(manifest_json(manifest));
  EXPECT_EQ(json["program"]["version"], program_facts().version);
  EXPECT_FALSE(json["program"]["git_commit"].get<std::string>().empty());
  EXPECT_EQ(json["layout"]["tensor"], 2);
  EXPECT_EQ(json["seeds"]["run"], 1234);
  EXPECT_EQ(json["ranks"][1]["host"], "n2");
  EXPECT_EQ(json["inputs"][0]["sha256"], "ab");
  EXPECT_TRUE(json["libraries"].contains("mpi"));
  EXPECT_TRUE(json["libraries"].contains("hdf5"));
  EXPECT_FALSE(json.contains("recipe"));
}

}  // namespace
}  // namespace verne
