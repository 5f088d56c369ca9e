# One environment = one header, whose name says what it defines: shoal's own build and packages of environments share this.

# The struct that a header defines, and how it is included from `base`: envs/cart_pole.hpp defines CartPole.
function(shoal_type_of_header header base type_out path_out)
  get_filename_component(stem ${header} NAME_WE)
  file(RELATIVE_PATH path ${base} ${header})
  string(REPLACE "_" ";" words ${stem})
  set(type "")
  foreach(word IN LISTS words)
    string(SUBSTRING ${word} 0 1 first)
    string(SUBSTRING ${word} 1 -1 rest)
    string(TOUPPER ${first} first)
    string(APPEND type ${first}${rest})
  endforeach()
  set(${type_out} ${type} PARENT_SCOPE)
  set(${path_out} ${path} PARENT_SCOPE)
endfunction()

# Writes what a build includes of the headers in ARGN, their types as MACRO(Type): folder/NAME.inc, and the headers
# themselves as folder/HEADERS.inc.
function(shoal_write_includes base folder headers_name name macro)
  set(includes "")
  set(types "")
  foreach(header IN LISTS ARGN)
    shoal_type_of_header(${header} ${base} type path)
    string(APPEND includes "#include \"${path}\"\n")
    string(APPEND types "${macro}(${type})\n")
  endforeach()
  file(GENERATE OUTPUT ${folder}/${headers_name}.inc CONTENT "${includes}")
  file(GENERATE OUTPUT ${folder}/${name}.inc CONTENT "${types}")
endfunction()
