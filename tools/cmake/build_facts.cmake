# Run at every build: writes OUTPUT, a header with the program's version, git commit, compiler and build type, and
# touches it only where something changed.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=40 --exclude=*
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR NOT commit)
  set(commit unknown)
endif()
set(text "#pragma once
namespace verne {
inline constexpr const char* kBuildVersion = \"${VERSION}\";
inline constexpr const char* kBuildGitCommit = \"${commit}\";
inline constexpr const char* kBuildCompiler = \"${COMPILER}\";
inline constexpr const char* kBuildType = \"${BUILD_TYPE}\";
inline constexpr const char* kSourceRecipes = \"${SOURCE}/inputs/recipes\";
}  // namespace verne
")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT "${old}" STREQUAL "${text}")
  file(WRITE ${OUTPUT} "${text}")
endif()
