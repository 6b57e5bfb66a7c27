// QEMU's migration capabilities and parameters, set for one migration and put back as they were.
#pragma once

#include <cstdint>
#include <exception>
#include <set>
#include <string>

#include "qemu/qmp_client.h"

namespace vmsave {

class SaveGuard;

// QEMU's parameter max-bandwidth, in bytes/s: more than any machine has.
inline constexpr std::int64_t kUnlimitedBandwidth = std::int64_t{1} << 40;

// What was changed, as it was before.
struct OldMigrationSettings {
  QmpClient::Json parameters = QmpClient::Json::object();   // arguments of migrate-set-parameters
  QmpClient::Json capabilities = QmpClient::Json::array();  // of migrate-set-capabilities
};

// False where QEMU refuses it or does not answer (it may be gone).
bool PutBack(QmpClient& qmp, const OldMigrationSettings& old) noexcept;

// What becomes of the settings when an exception ends their scope. kLeave: for a QEMU that is not fit for use then.
enum class OnFailure { kPutBack, kLeave };

// The destructor puts everything back.
class MigrationSettings {
 public:
  // Turns exactly the named capabilities on and all others off, except those that say nothing about the stream; and TLS
  // and compression off, with mode "normal". `guard` is told what has to be put back before it is changed. Throws where
  // QEMU does not have one of the capabilities.
  MigrationSettings(QmpClient& qmp, const std::set<std::string>& capabilities_on, OnFailure on_failure,
                    SaveGuard* guard = nullptr);
  MigrationSettings(const MigrationSettings&) = delete;
  MigrationSettings& operator=(const MigrationSettings&) = delete;
  ~MigrationSettings();

  // Sets one parameter of migrate-set-parameters, unless it has that value already. Throws where QEMU refuses it.
  void SetParameter(const std::string& name, const QmpClient::Json& value);

  // The same, where QEMU has such a parameter; nothing where it is older.
  void SetParameterIfKnown(const std::string& name, const QmpClient::Json& value);

  // Whoever sets this parameter meanwhile: it becomes what it is now.
  void PutBackInTheEnd(const std::string& name);

 private:
  void SetCapabilities(const std::set<std::string>& capabilities_on);
  void Set(const std::string& name, const QmpClient::Json& value);
  bool FailedSinceMade() const { return std::uncaught_exceptions() > exceptions_; }
  void PutAllBack() noexcept;
  void TellGuard();

  QmpClient& qmp_;
  SaveGuard* guard_;
  OnFailure on_failure_;
  int exceptions_ = std::uncaught_exceptions();
  QmpClient::Json parameters_;  // as they are now
  OldMigrationSettings old_;
};

// The capabilities that this QEMU has, on or off.
std::set<std::string> QueryCapabilities(QmpClient& qmp);

// Whether this QEMU has such a parameter.
bool HasMigrationParameter(QmpClient& qmp, const std::string& name);

// Why this QEMU cannot send or take a guest over multifd; empty if it can, as far as it tells.
std::string WhyNoMultifd(QmpClient& qmp);

}  // namespace vmsave
