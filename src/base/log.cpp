#include "verne/base/log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <boost/log/attributes/clock.hpp>
#include <boost/log/core.hpp>
#include <boost/log/expressions.hpp>
#include <boost/log/sinks/basic_sink_backend.hpp>
#include <boost/log/sinks/sync_frontend.hpp>
#include <boost/log/sinks/text_ostream_backend.hpp>
#include <boost/log/sources/record_ostream.hpp>
#include <boost/log/sources/severity_logger.hpp>
#include <boost/log/support/date_time.hpp>
#include <boost/log/utility/setup/common_attributes.hpp>
#include <boost/make_shared.hpp>
#include <boost/shared_ptr.hpp>
#include <cerrno>
#include <iostream>
#include <string_view>
#include <vector>

#include "verne/base/error.hpp"

namespace verne {
namespace {

namespace logging = boost::log;
namespace expressions = boost::log::expressions;
namespace sinks = boost::log::sinks;
using Sink = boost::shared_ptr<sinks::sink>;

BOOST_LOG_ATTRIBUTE_KEYWORD(severity, "Severity", LogLevel)

const char* prefix(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug: ";
    case LogLevel::info:
      return "";
    case LogLevel::warning:
      return "warning: ";
    case LogLevel::error:
      return "error: ";
  }
  return "";
}

/// Appends each record to a file as it comes. The first one that cannot be written (a full disk) throws
/// SystemError out of the call that logged it; later ones are passed over.
class FileBackend final : public sinks::basic_formatted_sink_backend<char, sinks::synchronized_feeding> {
 public:
  explicit FileBackend(const std::filesystem::path& file)
      : file_(file), descriptor_(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
    if (descriptor_ < 0) throw_errno(file_.string() + " cannot be opened for writing", errno);
  }
  ~FileBackend() { ::close(descriptor_); }
  FileBackend(const FileBackend&) = delete;
  FileBackend& operator=(const FileBackend&) = delete;

  void consume(const logging::record_view&, const std::string& record) {
    if (failed_) return;
    const std::string line = record + '\n';
    for (std::string_view rest = line; !rest.empty();) {
      const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) {
        failed_ = true;
        throw_errno(file_.string() + " cannot be written", errno);
      }
      rest.remove_prefix(static_cast<std::size_t>(written));
    }
  }

 private:
  std::filesystem::path file_;
  int descriptor_;
  bool failed_ = false;
};

boost::shared_ptr<sinks::synchronous_sink<sinks::text_ostream_backend>> screen_sink(std::ostream& stream) {
  auto backend = boost::make_shared<sinks::text_ostream_backend>();
  backend->add_stream(boost::shared_ptr<std::ostream>(&stream, [](std::ostream*) {}));
  backend->auto_flush(true);
  return boost::make_shared<sinks::synchronous_sink<sinks::text_ostream_backend>>(backend);
}

/// Whatever a message holds, a terminal gets no control character from it.
void format_plain(const logging::record_view& record, logging::formatting_ostream& stream) {
  stream << prefix(*record[severity]) << printable(*record[expressions::smessage]);
}

void format_dated(const logging::record_view& record, logging::formatting_ostream& stream) {
  const auto time = logging::extract<boost::posix_time::ptime>("TimeStamp", record);
  if (time) stream << boost::posix_time::to_iso_extended_string(*time) << ' ';
  format_plain(record, stream);
}

}  // namespace

struct Logging::State {
  Options options;
  std::vector<Sink> screen, files;

  static void add(const Sink& sink, std::vector<Sink>& to) {
    logging::core::get()->add_sink(sink);
    to.push_back(sink);
  }
  static void remove(std::vector<Sink>& from) {
    for (const Sink& sink : from) {
      logging::core::get()->remove_sink(sink);
      sink->flush();
    }
    from.clear();
  }
};

Logging::Logging(const Options& options) : state_(std::make_unique<State>()) {
  state_->options = options;
  logging::core::get()->remove_all_sinks();
  logging::core::get()->set_logging_enabled(true);
  logging::core::get()->add_global_attribute("TimeStamp", logging::attributes::local_clock());
  if (options.rank == 0) {
    const auto out = screen_sink(std::cout);
    out->set_filter(severity >= options.level && severity < LogLevel::warning);
    out->set_formatter(&format_plain);
    State::add(out, state_->screen);
  }
  const auto err = screen_sink(std::cerr);
  err->set_filter(severity >= LogLevel::warning);
  err->set_formatter(&format_plain);
  State::add(err, state_->screen);
}

Logging::~Logging() {
  State::remove(state_->screen);
  State::remove(state_->files);
  logging::core::get()->set_logging_enabled(true);
}

void Logging::leave_screen() {
  State::remove(state_->screen);
  // Without a sink Boost.Log would print to standard output in a form of its own.
  if (state_->files.empty()) logging::core::get()->set_logging_enabled(false);
}

void Logging::add_file(const std::filesystem::path& file) {
  logging::core::get()->set_logging_enabled(true);
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  const auto sink =
      boost::make_shared<sinks::synchronous_sink<FileBackend>>(boost::make_shared<FileBackend>(file));
  sink->set_filter(severity >= state_->options.level);
  sink->set_formatter(&format_dated);
  State::add(sink, state_->files);
}

void write_log(LogLevel level, const std::string& message) {
  thread_local logging::sources::severity_logger<LogLevel> logger;
  BOOST_LOG_SEV(logger, level) << message;
}

}  // namespace verne
