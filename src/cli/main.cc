#include "quantport/program.h"

int main(int argc, char** argv) { return quantport::RunProgram(argc, argv); }
