#include "churn.h"
#include "interrupts.h"
#include "multiboot.h"
#include "options.h"
#include "pages.h"
#include "patrol.h"
#include "ram_map.h"
#include "serial.h"
#include "timer.h"

namespace {

constexpr uint32_t kPagesPerMebibyteShift = 20 - kPageShift;

void PrintBanner(const Options& options, const Pages& pages) {
  Print("vmsave test guest: seed ", options.seed, ", ", pages.count() >> kPagesPerMebibyteShift, " MiB in ",
        pages.regions(), pages.regions() == 1 ? " region, " : " regions, ", pages.CountSelected(), " pages filled\n");
}

void PrintFinding(const Finding& finding) {
  switch (finding.kind) {
    case Finding::Kind::kOk:
      Print("ok");
      break;
    case Finding::Kind::kCorrupt:
      Print("corrupt ", Hex{finding.address});
      break;
    case Finding::Kind::kStale:
      Print("stale ", Hex{finding.address}, " generation ", finding.found, " expected ");
      finding.expected == Pages::kBlank ? Print("zero") : Print(finding.expected);
      break;
  }
}

[[noreturn]] void Run(const Options& options, Pages* pages) {
  Patrol patrol(*pages, options.passes);
  Churn churn(pages, options);
  uint32_t pass = 0;
  for (uint32_t tick = 1;; ++tick) {
    WaitForTick();
    const Finding finding = patrol.CheckSlice();
    Print("tick ", tick, " ");
    PrintFinding(finding);
    Print("\n");
    if (patrol.IsPassComplete()) Print("pass ", ++pass, patrol.IsPassOk() ? " ok\n" : " corrupt\n");
    churn.Step();
  }
}

}  // namespace

extern "C" void Main(uint32_t magic, const MultibootInfo* info) {
  InitSerial();
  if (magic != kMultibootLoaderMagic) {
    Print("not started by a multiboot loader\n");
    return;
  }
  // Nothing of the loader's is used after this, as it may lie in RAM that is about to be filled.
  const Options options = ParseOptions(info->flags & kMultibootHasCommandLine ? info->command_line : "");
  const RamMap ram(*info);
  if (ram.pages() == 0) {
    Print("no RAM to look after\n");
    return;
  }
  Pages pages(ram, options);

  PrintBanner(options, pages);
  pages.Init();
  InitInterrupts();
  StartTimer(options.tick);
  Print("ready\n");
  Run(options, &pages);
}
