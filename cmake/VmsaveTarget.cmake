# What every target of the project is compiled with: warnings as errors, and the sanitizers of the preset.
set(VMSAVE_SANITIZE "" CACHE STRING "Sanitizers, as in -fsanitize=")

add_library(vmsave_flags INTERFACE)
target_compile_options(vmsave_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow -Wnon-virtual-dtor -Werror)
target_include_directories(vmsave_flags INTERFACE ${PROJECT_SOURCE_DIR})
# What of them a directory or a target is compiled without, as in -fno-sanitize=.
define_property(TARGET PROPERTY VMSAVE_NO_SANITIZE INHERITED)
if(VMSAVE_SANITIZE)
  set(without $<TARGET_PROPERTY:VMSAVE_NO_SANITIZE>)
  target_compile_options(vmsave_flags INTERFACE -fsanitize=${VMSAVE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
    $<$<BOOL:${without}>:-fno-sanitize=${without}>)
  target_link_options(vmsave_flags INTERFACE -fsanitize=${VMSAVE_SANITIZE})
endif()

# vmsave_room(NAME SOURCES... LINKS...): one folder as one static library, vmsave::NAME.
function(vmsave_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  add_library(vmsave_${name} STATIC ${ROOM_SOURCES})
  add_library(vmsave::${name} ALIAS vmsave_${name})
  target_link_libraries(vmsave_${name} PUBLIC vmsave_flags ${ROOM_LINKS} PRIVATE ${ROOM_PRIVATE_LINKS})
endfunction()
