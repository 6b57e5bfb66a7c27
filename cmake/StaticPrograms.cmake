# The programs once more, for a host that has none of the libraries: vmrestore-static beside vmrestore. They are linked from the same objects, so that
# they cost next to nothing, and with the archives that Debian's packages have beside the shared libraries.
option(VMSAVE_STATIC "Build statically linked programs too" OFF)
if(NOT VMSAVE_STATIC)
  return()
endif()

# Each in front of those that it refers to. Of what libarchive is made with, the raw format and the filters (archive_read_append_filter refers to all
# filters) refer to no more than these; pkg-config would list all of it.
set(vmsave_archives)
foreach(library pugixml config++ uring xxhash archive bz2 lz4 lzma zstd z)
  find_library(vmsave_archive_${library} lib${library}.a REQUIRED)
  list(APPEND vmsave_archives ${vmsave_archive_${library}})
endforeach()

# What the archives lack.
add_library(vmsave_static_additions STATIC
  cmake/static/fmt.cc
  cmake/static/xxhash_dispatch.cc)

set(vmsave_rooms)
set(vmsave_room_archives)
foreach(room cli convert qemu writer reader io format)
  list(APPEND vmsave_rooms vmsave_${room})
  list(APPEND vmsave_room_archives $<TARGET_FILE:vmsave_${room}>)
endforeach()

foreach(program vmsave vmrestore vmimage)
  add_executable(${program}-static $<TARGET_OBJECTS:${program}>)
  set_target_properties(${program}-static PROPERTIES
    LINKER_LANGUAGE CXX
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  # Files, not targets, which would bring the shared libraries along.
  target_link_libraries(${program}-static PRIVATE -static -s ${vmsave_room_archives} vmsave_static_additions ${vmsave_archives})
  # Rooms too: a program does not link all of those that its static one names.
  add_dependencies(${program}-static ${program} ${vmsave_rooms})
endforeach()
