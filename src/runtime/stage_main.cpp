#include "runtime/stage.h"

int main() {
  return hutch::runtime::run_stage();
}
