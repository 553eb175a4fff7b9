#include "verne/base/log.hpp"

#include <boost/log/attributes/clock.hpp>
#include <boost/log/core.hpp>
#include <boost/log/expressions.hpp>
#include <boost/log/sinks/sync_frontend.hpp>
#include <boost/log/sinks/text_ostream_backend.hpp>
#include <boost/log/sources/record_ostream.hpp>
#include <boost/log/sources/severity_logger.hpp>
#include <boost/log/support/date_time.hpp>
#include <boost/log/utility/setup/common_attributes.hpp>
#include <boost/make_shared.hpp>
#include <boost/shared_ptr.hpp>
#include <fstream>
#include <iostream>
#include <vector>

namespace verne {
namespace {

namespace logging = boost::log;
namespace expressions = boost::log::expressions;
using Backend = logging::sinks::text_ostream_backend;
using Sink = logging::sinks::synchronous_sink<Backend>;

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

boost::shared_ptr<Sink> make_sink(const boost::shared_ptr<std::ostream>& stream) {
  auto backend = boost::make_shared<Backend>();
  backend->add_stream(stream);
  backend->auto_flush(true);
  return boost::make_shared<Sink>(backend);
}

void format_plain(const logging::record_view& record, logging::formatting_ostream& stream) {
  stream << prefix(*record[severity]) << record[expressions::smessage];
}

void format_dated(const logging::record_view& record, logging::formatting_ostream& stream) {
  const auto time = logging::extract<boost::posix_time::ptime>("TimeStamp", record);
  if (time) stream << boost::posix_time::to_iso_extended_string(*time) << ' ';
  format_plain(record, stream);
}

}  // namespace

struct Logging::State {
  Options options;
  std::vector<boost::shared_ptr<Sink>> screen, files;

  static void add(const boost::shared_ptr<Sink>& sink, std::vector<boost::shared_ptr<Sink>>& to) {
    logging::core::get()->add_sink(sink);
    to.push_back(sink);
  }
  static void remove(std::vector<boost::shared_ptr<Sink>>& sinks) {
    for (const auto& sink : sinks) {
      logging::core::get()->remove_sink(sink);
      sink->flush();
    }
    sinks.clear();
  }
};

Logging::Logging(const Options& options) : state_(std::make_unique<State>()) {
  state_->options = options;
  logging::core::get()->remove_all_sinks();
  logging::core::get()->set_logging_enabled(true);
  logging::core::get()->add_global_attribute("TimeStamp", logging::attributes::local_clock());
  const auto no_delete = [](std::ostream*) {};
  if (options.rank == 0) {
    auto out = make_sink(boost::shared_ptr<std::ostream>(&std::cout, no_delete));
    out->set_filter(severity >= options.level && severity < LogLevel::warning);
    out->set_formatter(&format_plain);
    State::add(out, state_->screen);
  }
  auto err = make_sink(boost::shared_ptr<std::ostream>(&std::cerr, no_delete));
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
  auto sink = make_sink(boost::make_shared<std::ofstream>(file, std::ios::app));
  sink->set_filter(severity >= state_->options.level);
  sink->set_formatter(&format_dated);
  State::add(sink, state_->files);
}

void write_log(LogLevel level, const std::string& message) {
  thread_local logging::sources::severity_logger<LogLevel> logger;
  BOOST_LOG_SEV(logger, level) << message;
}

}  // namespace verne
