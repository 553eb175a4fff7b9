#include "verne/io/file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::read_text;
using testing::write_text;

std::span<const std::byte> bytes_of_text(std::string_view text) {
  return std::as_bytes(std::span(text));
}

template <class Failure, class Work>
std::string message_of(const Work& work) {
  try {
    work();
  } catch (const Failure& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing of the expected kind was thrown";
  return "";
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(File, ReadsAndWritesAtOffsets) {
  const testing::TemporaryDirectory directory;
  File file = File::create(directory.path() / "x");
  file.write_at(4, bytes_of_text("world"));
  file.write_at(0, bytes_of_text("abcd"));
  std::string text(5, '\0');
  file.read_at(2, std::as_writable_bytes(std::span(text)));
  EXPECT_EQ(text, "cdwor");
  EXPECT_EQ(file.size(), 9);
  file.close();
  EXPECT_EQ(read_text(directory.path() / "x"), "abcdworld");
}

TEST(File, NamesWhatCannotBeRead) {
  const testing::TemporaryDirectory directory;
  EXPECT_THAT(message_of<UserError>([&] { File::open_read(directory.path() / "none"); }),
              AllOf(HasSubstr((directory.path() / "none").string()), HasSubstr("No such file")));
  EXPECT_THAT(message_of<UserError>([&] { File::open_read(directory.path()); }), HasSubstr("Is a directory"));
  write_text(directory.path() / "short", "1234");
  const File file = File::open_read(directory.path() / "short");
  std::array<std::byte, 8> buffer{};
  EXPECT_THAT(message_of<UserError>([&] { file.read_at(2, buffer); }),
              AllOf(HasSubstr("short"), HasSubstr("ends at byte 4"), HasSubstr("2 to 10")));
}

TEST(File, FullDiskIsASystemError) {
  File file = File::open_write("/dev/full");
  const std::string message = message_of<SystemError>([&] { file.write_at(0, bytes_of_text("x")); });
  EXPECT_THAT(message, AllOf(HasSubstr("/dev/full"), HasSubstr("disk is full")));
  EXPECT_EQ(SystemError(message).exit_code(), ExitCode::failure);
}

TEST(File, SizeLimitIsFoundWhenSpaceIsReserved) {
  const testing::TemporaryDirectory directory;
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string reserving =
      message_of<SystemError>([&] { File::create(directory.path() / "x").reserve(8192); });
  const std::string writing = message_of<SystemError>([&] {
    AtomicFile file(directory.path() / "y");
    file.write(std::string(8192, 'x'));
  });
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_THAT(reserving, AllOf(HasSubstr("disk is full"), HasSubstr("8192 bytes")));
  EXPECT_THAT(writing, HasSubstr("disk is full"));
  EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"x"})
      << "nothing half-written, nothing aside";
}

TEST(File, ReserveGivesTheSize) {
  const testing::TemporaryDirectory directory;
  const File file = File::create(directory.path() / "x");
  file.reserve(12345);
  EXPECT_EQ(file.size(), 12345);
}

/// Where a file system cannot set space aside, the size is given without a byte written to every page.
TEST(File, ReserveTouchesNoPage) {
  const testing::TemporaryDirectory directory;
  if (::getuid() != 0 || ::mount("ramfs", directory.path().c_str(), "ramfs", 0, "") != 0)
    GTEST_SKIP() << "a file system of this kind needs root";
  constexpr std::size_t kPages = 4096;
  const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> in_memory(kPages, 1);
  {
    const File file = File::create(directory.path() / "x");
    file.reserve(static_cast<std::int64_t>(kPages * page));
    EXPECT_EQ(file.size(), static_cast<std::int64_t>(kPages * page));
    const int descriptor = ::open((directory.path() / "x").c_str(), O_RDONLY | O_CLOEXEC);
    void* memory = ::mmap(nullptr, kPages * page, PROT_READ, MAP_SHARED, descriptor, 0);
    ASSERT_NE(memory, MAP_FAILED);
    EXPECT_EQ(::mincore(memory, kPages * page, in_memory.data()), 0);
    ::munmap(memory, kPages * page);
    ::close(descriptor);
  }
  ::umount(directory.path().c_str());
  EXPECT_EQ(std::count_if(in_memory.begin(), in_memory.end(), [](unsigned char c) { return (c & 1) != 0; }),
            0);
}

TEST(ReadWholeText, BoundsWhatItReads) {
  const testing::TemporaryDirectory directory;
  write_text(directory.path() / "x", std::string("a\0b", 3));
  EXPECT_EQ(read_whole_text(directory.path() / "x", 3), std::string("a\0b", 3));
  EXPECT_THAT(message_of<UserError>([&] { read_whole_text(directory.path() / "x", 2); }),
              HasSubstr("longer than the 2 bytes"));
  EXPECT_THROW(read_whole_text("/dev/zero", 1 << 16), UserError);
  write_text(directory.path() / "empty", "");
  EXPECT_EQ(read_whole_text(directory.path() / "empty"), "");
}

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  const testing::TemporaryDirectory directory;
  const fs::path path = directory.path() / "sub" / "out.txt";
  {
    AtomicFile file(path);
    file.write("half");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_EQ(names_in(path.parent_path()), std::vector<std::string>{}) << "an abandoned file leaves nothing";
  write_file_atomically(path, "old");
  try {
    AtomicFile file(path);
    file.write("new");
    throw std::runtime_error("in the middle");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(read_text(path), "old");
  AtomicFile file(path);
  file.write("new ");
  file.write("content");
  file.publish();
  EXPECT_EQ(read_text(path), "new content");
  EXPECT_EQ(names_in(path.parent_path()), std::vector<std::string>{"out.txt"});
}

TEST(AtomicFile, RemovesWhatAKilledWriterLeft) {
  const testing::TemporaryDirectory directory;
  const fs::path path = directory.path() / "out";
  const pid_t child = fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write("half");
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(names_in(directory.path()).size(), 1u);
  AtomicFile living(path);
  write_file_atomically(path, "whole");
  EXPECT_EQ(names_in(directory.path()), (std::vector<std::string>{living.temporary().filename(), "out"}))
      << "only what is still being written stays";
  EXPECT_EQ(read_text(path), "whole");
}

TEST(AtomicFile, FollowsLinksAndDevices) {
  const testing::TemporaryDirectory directory;
  write_text(directory.path() / "real" / "x", "old");
  fs::create_symlink("real/x", directory.path() / "link");
  write_file_atomically(directory.path() / "link", "new");
  EXPECT_TRUE(fs::is_symlink(directory.path() / "link"));
  EXPECT_EQ(read_text(directory.path() / "real" / "x"), "new");
  write_file_atomically("/dev/null", "gone");
  EXPECT_THROW(write_file_atomically("/dev/full", "x"), SystemError);
  EXPECT_THAT(message_of<UserError>([&] { AtomicFile file(directory.path()); }), HasSubstr("Is a directory"));
}

TEST(AtomicDirectory, ReplacesAnOlderOneInOneStep) {
  const testing::TemporaryDirectory directory;
  const fs::path path = directory.path() / "model";
  for (const std::string content : {"first", "second"}) {
    AtomicDirectory folder(path.string() + "/", "config.json");
    write_text(folder.temporary() / "config.json", content);
    write_text(folder.temporary() / (content + ".bin"), content);
    folder.publish();
    EXPECT_EQ(names_in(path), (std::vector<std::string>{"config.json", content + ".bin"}));
  }
  EXPECT_EQ(read_text(path / "config.json"), "second");
  {
    AtomicDirectory folder(path, "config.json");
    write_text(folder.temporary() / "config.json", "third");
  }
  EXPECT_EQ(read_text(path / "config.json"), "second");
  EXPECT_EQ(names_in(directory.path()), std::vector<std::string>{"model"});
}

TEST(AtomicDirectory, RefusesSomebodyElsesFolder) {
  const testing::TemporaryDirectory directory;
  write_text(directory.path() / "home" / "letters.txt", "dear");
  EXPECT_THAT(
      message_of<UserError>([&] { AtomicDirectory folder(directory.path() / "home", "config.json"); }),
      AllOf(HasSubstr("home"), HasSubstr("config.json"), HasSubstr("choose another")));
  write_text(directory.path() / "file", "x");
  EXPECT_THROW(AtomicDirectory(directory.path() / "file", "config.json"), UserError);
  fs::create_directory(directory.path() / "empty");
  AtomicDirectory(directory.path() / "empty", "config.json").publish();
  EXPECT_EQ(names_in(directory.path()), (std::vector<std::string>{"empty", "file", "home"}));
}

TEST(IsInside, RefusesWhatLeavesTheFolder) {
  const testing::TemporaryDirectory directory;
  write_text(directory.path() / "outside", "x");
  write_text(directory.path() / "in" / "a", "x");
  const fs::path folder = directory.path() / "in";
  fs::create_symlink("../outside", folder / "link");
  fs::create_symlink("a", folder / "near");
  fs::create_directory_symlink("..", folder / "up");
  EXPECT_TRUE(is_inside(folder, "a"));
  EXPECT_TRUE(is_inside(folder, "near"));
  EXPECT_TRUE(is_inside(folder, "deeper/new"));
  for (const char* path : {"", "..", "../in/a", "a/../../outside", "/etc/passwd", "link", "up/outside", "."})
    EXPECT_FALSE(is_inside(folder, path)) << path;
  EXPECT_FALSE(is_inside(folder, std::string("a\0b", 3)));
  fs::create_directory_symlink(folder, directory.path() / "alias");
  EXPECT_TRUE(is_inside(directory.path() / "alias", "a"));
}

TEST(MappedFile, HasReadableZerosAfterItsEnd) {
  const testing::TemporaryDirectory directory;
  for (const std::size_t size : {0u, 5u, 4096u, 8192u}) {
    write_text(directory.path() / "x", std::string(size, 'a'));
    const MappedFile file(directory.path() / "x");
    ASSERT_EQ(file.text(), std::string(size, 'a'));
    for (std::int64_t i = 0; i < MappedFile::kPaddingBytes; ++i)
      ASSERT_EQ(file.text().data()[size + static_cast<std::size_t>(i)], 0);
  }
}

}  // namespace
}  // namespace verne
